//! What `kubectl` is configured by ("Organizing Cluster Access Using kubeconfig Files").

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use yaml_rust2::{Yaml, YamlLoader};

use super::{access::unreadable, object::config};
use crate::Result;

/// The files, the first of which counts where several say something of one name.
#[derive(Debug, Default)]
pub(super) struct Files(Vec<(PathBuf, Yaml)>);

/// One context, all that it leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) server: String,
    pub(super) authority: Option<Pem>,
    /// Whose name the server's certificate is to bear, if not that of its URL.
    pub(super) server_name: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) certificate: Option<(Pem, Pem)>,
    pub(super) token: Option<Token>,
    pub(super) exec: Option<Exec>,
    /// Headers that make us another.
    pub(super) impersonation: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pem {
    Inline(Vec<u8>),
    File(PathBuf),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    Text(String),
    File(PathBuf),
}

/// A program that gives a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exec {
    pub(super) command: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) api_version: String,
    pub(super) with_cluster: bool,
    pub(super) hint: Option<String>,
}

impl Files {
    /// Those of the list in `KUBECONFIG`, of which some may be missing, or the one in the user's directory.
    pub(super) fn default_paths(list: Option<&str>, home: Option<&str>) -> Vec<PathBuf> {
        match (list, home) {
            (Some(list), _) => {
                let mut paths: Vec<PathBuf> = Vec::new();
                for path in std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()) {
                    if !paths.contains(&path) {
                        paths.push(path);
                    }
                }
                paths
            }
            (None, Some(home)) => vec![Path::new(home).join(".kube").join("config")],
            (None, None) => Vec::new(),
        }
    }

    pub(super) fn read(paths: &[PathBuf], may_be_missing: bool) -> Result<Self> {
        let mut files = Self::default();
        for path in paths {
            match std::fs::read_to_string(path) {
                Ok(text) => files.add(path, &text)?,
                Err(e) if may_be_missing && e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(unreadable(path, &e)),
            }
        }
        Ok(files)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of one file. It may hold secrets: no error repeats any of it.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let wrong = |what: &str| config(format!("{}: {what}", path.display()));
        let mut documents = YamlLoader::load_from_str(text)
            .map_err(|e| wrong(&format!("not YAML, at line {}", e.marker().line())))?;
        match documents.len() {
            0 => return Ok(()),
            1 => {}
            _ => return Err(wrong("more than one YAML document")),
        }
        let document = documents.remove(0);
        match &document {
            Yaml::Null => return Ok(()),
            Yaml::Hash(_) => {}
            _ => return Err(wrong("no kubeconfig")),
        }
        self.0.push((path.to_owned(), document));
        Ok(())
    }

    /// The entry of a list by its name, and the file that it is in.
    fn find(&self, list: &str, name: &str, inner: &str) -> Result<(&Path, &Yaml)> {
        let mut entries = self.0.iter().flat_map(|(path, file)| {
            file[list].as_vec().into_iter().flatten().map(move |entry| (&**path, entry))
        });
        let found = entries.find(|(_, entry)| entry["name"].as_str() == Some(name));
        let (path, entry) =
            found.ok_or_else(|| config(format!("the kubeconfig has no {inner} called {name:?}")))?;
        Ok((path, &entry[inner]))
    }

    /// All that a context says, or the current one.
    ///
    /// # Errors
    /// `Config`, with what is missing or is not used here. No secret is in it.
    pub(super) fn context(&self, name: Option<&str>) -> Result<Context> {
        let current = || self.0.iter().find_map(|(_, file)| text(&file["current-context"]));
        let name = name
            .or_else(current)
            .ok_or_else(|| config("the kubeconfig names no `current-context`".to_owned()))?;
        let (_, context) = self.find("contexts", name, "context")?;
        let of = |field: &str| {
            text(&context[field]).ok_or_else(|| config(format!("the context {name:?} names no {field}")))
        };
        let mut resolved =
            Context { namespace: text(&context["namespace"]).map(str::to_owned), ..Context::default() };
        let (file, cluster) = self.find("clusters", of("cluster")?, "cluster")?;
        resolved.add_cluster(&Section { file, yaml: cluster })?;
        let (file, user) = self.find("users", of("user")?, "user")?;
        resolved.add_user(&Section { file, yaml: user })?;
        Ok(resolved)
    }
}

/// A part of a file, by which relative paths are meant.
struct Section<'a> {
    file: &'a Path,
    yaml: &'a Yaml,
}

impl Section<'_> {
    fn text(&self, field: &str) -> Option<String> {
        text(&self.yaml[field]).map(str::to_owned)
    }

    fn path(&self, field: &str) -> Option<PathBuf> {
        Some(self.beside(Path::new(text(&self.yaml[field])?)))
    }

    fn beside(&self, path: &Path) -> PathBuf {
        self.file.parent().map_or_else(|| path.to_owned(), |dir| dir.join(path))
    }

    /// What stands in the file itself counts before what it names.
    fn pem(&self, field: &str) -> Result<Option<Pem>> {
        match text(&self.yaml[&*format!("{field}-data")]) {
            Some(data) => {
                let data: String = data.split_ascii_whitespace().collect();
                let pem = STANDARD.decode(data);
                let pem =
                    pem.map_err(|_| config(format!("`{field}-data` of the kubeconfig is not base64")))?;
                Ok(Some(Pem::Inline(pem)))
            }
            None => Ok(self.path(field).map(Pem::File)),
        }
    }

    /// What would make another connection or another user of this than is made.
    fn has_none_of(&self, fields: &[(&str, &str)]) -> Result<()> {
        for (field, remedy) in fields {
            let value = &self.yaml[*field];
            if !value.is_badvalue() && !value.is_null() && value.as_bool() != Some(false) {
                return Err(config(format!("`{field}` of the kubeconfig is not supported: {remedy}")));
            }
        }
        Ok(())
    }
}

impl Context {
    fn add_cluster(&mut self, cluster: &Section<'_>) -> Result<()> {
        cluster.has_none_of(&[
            ("insecure-skip-tls-verify", "give the authority that signed the server's certificate"),
            ("proxy-url", "set HTTPS_PROXY"),
        ])?;
        let missing = || config("the cluster of the kubeconfig's context has no `server`".to_owned());
        self.server = cluster.text("server").ok_or_else(missing)?;
        self.authority = cluster.pem("certificate-authority")?;
        self.server_name = cluster.text("tls-server-name");
        Ok(())
    }

    fn add_user(&mut self, user: &Section<'_>) -> Result<()> {
        user.has_none_of(&[
            ("username", "API servers take no passwords any more"),
            ("auth-provider", "use an exec plugin, as kubectl does since 1.26"),
            ("as-user-extra", "impersonate without it"),
        ])?;
        self.certificate = match (user.pem("client-certificate")?, user.pem("client-key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(config("the kubeconfig has one of client certificate and key alone".to_owned())),
        };
        let file = user.path("tokenFile").map(Token::File);
        self.token = file.or_else(|| user.text("token").map(Token::Text));
        for (field, header) in [("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid")] {
            self.impersonation.extend(user.text(field).map(|value| (header, value)));
        }
        for group in user.yaml["as-groups"].as_vec().into_iter().flatten() {
            self.impersonation.extend(text(group).map(|group| ("Impersonate-Group", group.to_owned())));
        }
        let exec = &user.yaml["exec"];
        if !exec.is_badvalue() && !exec.is_null() {
            self.exec = Some(Exec::of(&Section { file: user.file, yaml: exec })?);
        }
        Ok(())
    }
}

impl Exec {
    fn of(exec: &Section<'_>) -> Result<Self> {
        let missing = |what: &str| config(format!("the exec plugin of the kubeconfig has no `{what}`"));
        let api_version = exec.text("apiVersion").ok_or_else(|| missing("apiVersion"))?;
        if !["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]
            .contains(&&*api_version)
        {
            return Err(config(format!(
                "the exec plugin of the kubeconfig is of {api_version:?}: v1 and v1beta1 of \
                 client.authentication.k8s.io are supported"
            )));
        }
        if exec.text("interactiveMode").as_deref() == Some("Always") {
            return Err(config(
                "the exec plugin of the kubeconfig wants to ask a person: none is here".to_owned(),
            ));
        }
        let command = exec.text("command").ok_or_else(|| missing("command"))?;
        // With a slash in it it is meant by the file, else it is looked for on the PATH.
        let command = if command.contains(['/', std::path::MAIN_SEPARATOR]) {
            exec.beside(Path::new(&command))
        } else {
            PathBuf::from(command)
        };
        let all = |list: &Yaml| -> Vec<String> {
            list.as_vec().into_iter().flatten().filter_map(text).map(str::to_owned).collect()
        };
        let variable = |entry: &Yaml| {
            Some((text(&entry["name"])?.to_owned(), entry["value"].as_str().unwrap_or_default().to_owned()))
        };
        Ok(Self {
            command,
            arguments: all(&exec.yaml["args"]),
            environment: exec.yaml["env"].as_vec().into_iter().flatten().filter_map(variable).collect(),
            api_version,
            with_cluster: exec.yaml["provideClusterInfo"].as_bool().unwrap_or(false),
            hint: exec.text("installHint"),
        })
    }
}

/// A text that is not empty. A token of digits alone is one, too.
fn text(yaml: &Yaml) -> Option<&str> {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
