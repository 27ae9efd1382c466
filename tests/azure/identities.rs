//! Programs with an identity: the variables that describe it, the services that serve it, and what these are asked.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::SystemTime,
};

use crate::identity_server::{Asked, IdentityServer, grants_token, json, jwt, seconds};

pub(crate) const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
pub(crate) const CLIENT: &str = "d4c9e3f2-0000-4000-8000-00000000c11e";
pub(crate) const SECRET: &str = "hunter2~&=+%/secret";
pub(crate) const SECRET_ON_THE_WIRE: &str = "hunter2~%26%3D%2B%25%2Fsecret";
pub(crate) const ASSERTION: &str = "eyJhbGciOiJub25lIn0.eyJhc3NlcnRpb24iOiJodW50ZXIyIn0.assertion";
pub(crate) const HEADER: &str = "853b9a84-5bfa-4b22-a3f3-hunter2header";
pub(crate) const AUDIENCE: &str = "https://storage.azure.com";

/// The variables of one credential, and nothing else that a credential could be found by.
#[derive(Clone)]
pub(crate) struct Environment(pub(crate) Vec<(String, String)>);

impl Environment {
    pub(crate) fn new(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a role, and gives what it said.
    #[track_caller]
    pub(crate) fn run(&self, role: &str) -> String {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "credentials::role", "--ignored", "--nocapture", "--test-threads=1"]);
        for (name, _) in env::vars() {
            if name.starts_with("AZURE_") || name.starts_with("IDENTITY_") || name.starts_with("SSL_CERT_") {
                command.env_remove(name);
            }
        }
        command.env("LEASEHOLD_ROLE", role).envs(self.0.clone());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let lines = said.lines().filter_map(|line| line.strip_prefix('@'));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A file of this test, gone with it.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, SeqCst);
        let dir = env::temp_dir().join(format!("leasehold-credentials-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), text).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir.join(name))
    }

    /// An `az` that runs this script, and knows nothing but this machine's own programs.
    pub(crate) fn az(script: &str) -> Self {
        Self::new("az", &format!("#!/bin/sh\n{script}\n"))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn dir(&self) -> &str {
        self.0.parent().unwrap().to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.parent().unwrap());
    }
}

/// A free port of this machine, for a server that starts in another process: none of those that the system gives
/// away by itself.
pub(crate) fn free_port() -> u16 {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let start = std::process::id() as usize * 16;
    let next = || u16::try_from(20_000 + (start + COUNT.fetch_add(1, SeqCst)) % 12_000).unwrap();
    std::iter::repeat_with(next).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Each credential with an identity that the environment describes, served at this URL.
pub(crate) fn identities(url: &str, assertion: &File) -> Vec<(&'static str, Environment)> {
    let entra = [("AZURE_TENANT_ID", TENANT), ("AZURE_CLIENT_ID", CLIENT), ("AZURE_AUTHORITY_HOST", url)];
    let app = format!("{url}/msi/token/");
    vec![
        ("client secret", Environment::new(&entra).and("AZURE_CLIENT_SECRET", SECRET)),
        ("workload identity", Environment::new(&entra).and("AZURE_FEDERATED_TOKEN_FILE", assertion.path())),
        ("app", Environment::new(&[("IDENTITY_ENDPOINT", &app), ("IDENTITY_HEADER", HEADER)])),
        ("machine", Environment::new(&[("AZURE_POD_IDENTITY_AUTHORITY_HOST", url)])),
    ]
}

/// What is wrong with a request for a token, to the letter.
pub(crate) fn fault_of(asked: &Asked) -> Option<String> {
    let resource = "resource=https%3A%2F%2Fstorage.azure.com";
    let client = format!(
        "grant_type=client_credentials&client_id={CLIENT}&scope=https%3A%2F%2Fstorage.azure.com%2F.default"
    );
    let form = ("application/x-www-form-urlencoded", "", "");
    let (body, headers) = match &*asked.line {
        line if line == format!("POST /{TENANT}/oauth2/v2.0/token") => {
            let proof = if asked.body.contains("client_secret") {
                format!("client_secret={SECRET_ON_THE_WIRE}")
            } else {
                let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
                format!("client_assertion_type={kind}&client_assertion={ASSERTION}")
            };
            (format!("{client}&{proof}"), form)
        }
        line if line == format!("GET /msi/token/?api-version=2019-08-01&{resource}") => {
            (String::new(), ("", HEADER, ""))
        }
        line if line == format!("GET /metadata/identity/oauth2/token?api-version=2018-02-01&{resource}") => {
            (String::new(), ("", "", "true"))
        }
        line => return Some(format!("line {line}")),
    };
    let sent = (asked.header("content-type"), asked.header("x-identity-header"), asked.header("metadata"));
    if sent != headers {
        return Some(format!("headers {sent:?}"));
    }
    (asked.body != body).then(|| format!("body {}", asked.body))
}

/// The metadata service's answer to a request without its header.
pub(crate) fn is_probe(asked: &Asked) -> bool {
    asked.line == "GET /metadata/identity/oauth2/token" && asked.header("metadata").is_empty()
}

pub(crate) fn refuses_probe() -> Vec<u8> {
    json(
        400,
        "{\"error\":\"invalid_request\",\"error_description\":\"Required metadata header not specified\"}",
    )
}

/// A service that gives each who asks to the letter a new token for an hour, in the words of his service.
pub(crate) fn gives(number: &AtomicUsize) -> impl Fn(&Asked) -> Vec<u8> {
    move |asked| {
        if is_probe(asked) {
            return refuses_probe();
        }
        if let Some(fault) = fault_of(asked) {
            return json(
                400,
                &format!("{{\"error\":\"invalid_request\",\"error_description\":\"{fault}\"}}"),
            );
        }
        let end = seconds(SystemTime::now()) + 3600;
        let token = jwt(AUDIENCE, end, number.fetch_add(1, SeqCst));
        let fields = if asked.line.starts_with("POST") {
            "\"expires_in\":3599,\"ext_expires_in\":3599".to_owned()
        } else {
            format!("\"expires_on\":\"{end}\",\"resource\":\"{AUDIENCE}\"")
        };
        grants_token(&token, &fields)
    }
}

pub(crate) fn token_service() -> IdentityServer {
    let number: &'static AtomicUsize = Box::leak(Box::default());
    IdentityServer::start(gives(number))
}

/// An Azure CLI that is logged in.
pub(crate) fn az() -> File {
    let end = seconds(SystemTime::now()) + 3600;
    let token = jwt(AUDIENCE, end, 0);
    let arguments = "account get-access-token -o json --scope https://storage.azure.com/.default";
    File::az(&format!(
        "[ \"$*\" = '{arguments}' ] || {{ echo \"ERROR: asked for $*\" >&2; exit 2; }}\n\
         echo 'WARNING: a new version is there' >&2\n\
         echo '{{\"accessToken\": \"{token}\", \"expiresOn\": \"2030-01-01 00:00:00.000000\", \
         \"expires_on\": {end}, \"subscription\": \"s\", \"tenant\": \"t\", \"tokenType\": \"Bearer\"}}'"
    ))
}

/// A machine without an identity: nobody listens.
pub(crate) fn no_machine(environment: Environment) -> Environment {
    environment.and("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")
}
