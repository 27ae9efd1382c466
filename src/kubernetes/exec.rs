//! Programs that give a credential ("client-go credential plugins" of the Kubernetes documentation).

use std::{
    fmt,
    process::Command,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{kubeconfig::Exec, object::config};
use crate::{Error, ErrorKind, Result, program, rfc3339, shown::shown};

/// A plugin, and the cluster that it is asked for.
pub(super) struct Plugin {
    pub(super) exec: Exec,
    pub(super) server: String,
    pub(super) server_name: Option<String>,
    pub(super) authority: Option<Vec<u8>>,
}

/// What a plugin gave.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Issued {
    pub(super) token: Option<String>,
    /// A client certificate and its key.
    pub(super) certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// For how long, if it says.
    pub(super) life: Option<Duration>,
}

impl Plugin {
    /// Runs it, for so long at most.
    ///
    /// # Errors
    /// `Config` for a program that is not there or speaks another language, `Unavailable` for one that fails.
    pub(super) fn ask(&self, limit: Duration, now: SystemTime) -> Result<Issued> {
        let Exec { command, arguments, environment, hint, .. } = &self.exec;
        let name = command.display().to_string();
        let mut running = Command::new(command);
        running.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        running.env("KUBERNETES_EXEC_INFO", self.info());
        let (status, [said, complaint]) =
            program::run(&name, running, limit).map_err(|error| match hint {
                Some(hint) if error.kind() == ErrorKind::Config => {
                    Error::new(ErrorKind::Config, format!("{error}; {}", first_line(hint))).not_sent()
                }
                _ => error,
            })?;
        if !status.success() {
            let why = first_line(&String::from_utf8_lossy(&complaint));
            let what = format!("`{name}` failed ({status}): {why}");
            return Err(Error::new(ErrorKind::Unavailable, what).not_sent());
        }
        read(&said, &self.exec.api_version, now)
            .ok_or_else(|| config(format!("`{name}` gave no credential of {}", self.exec.api_version)))
    }

    /// What it is told of who asks.
    fn info(&self) -> String {
        let mut spec = json!({ "interactive": false });
        if self.exec.with_cluster {
            spec["cluster"] = json!({ "server": self.server });
            if let Some(name) = &self.server_name {
                spec["cluster"]["tls-server-name"] = name.as_str().into();
            }
            if let Some(authority) = &self.authority {
                spec["cluster"]["certificate-authority-data"] = STANDARD.encode(authority).into();
            }
        }
        json!({ "apiVersion": self.exec.api_version, "kind": "ExecCredential", "spec": spec }).to_string()
    }
}

/// An `ExecCredential`; `None` for anything else.
pub(super) fn read(said: &[u8], api_version: &str, now: SystemTime) -> Option<Issued> {
    let said: Value = serde_json::from_slice(said).ok()?;
    let is = |field: &str, value: &str| said.get(field).and_then(Value::as_str) == Some(value);
    if !is("kind", "ExecCredential") || !is("apiVersion", api_version) {
        return None;
    }
    let status = said.get("status")?;
    let text = |field: &str| status.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let certificate = match (text("clientCertificateData"), text("clientKeyData")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return None,
    };
    let token = text("token").map(str::to_owned);
    if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return None;
    }
    let life = match text("expirationTimestamp") {
        Some(time) => Some(rfc3339::parse(time)?.duration_since(now).unwrap_or_default()),
        None => None,
    };
    (token.is_some() || certificate.is_some()).then_some(Issued { token, certificate, life })
}

/// One line of what a program complains of, fit for people.
fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    shown(line, 200)
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("command", &self.exec.command).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn credential(status: &str) -> Option<Issued> {
        let text = format!(r#"{{"apiVersion":"{V1}","kind":"ExecCredential","status":{status}}}"#);
        read(text.as_bytes(), V1, at(1_795_244_820))
    }

    #[test]
    fn credentials() {
        let token = credential(r#"{"token":"t","expirationTimestamp":"2026-11-21T07:17:00Z"}"#).unwrap();
        assert_eq!((token.token.as_deref(), token.life), (Some("t"), Some(Duration::from_secs(600))));
        let over = credential(r#"{"token":"t","expirationTimestamp":"2026-11-21T06:17:00Z"}"#).unwrap();
        assert_eq!(over.life, Some(Duration::ZERO));
        let both = credential(r#"{"clientCertificateData":"C","clientKeyData":"K"}"#).unwrap();
        assert_eq!((both.certificate, both.life), (Some((b"C".to_vec(), b"K".to_vec())), None));
        for wrong in [
            "null",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a b"}"#,
            r#"{"clientCertificateData":"C"}"#,
            r#"{"token":"t","expirationTimestamp":"soon"}"#,
        ] {
            assert!(credential(wrong).is_none(), "{wrong}");
        }
        assert!(read(b"{}", V1, at(0)).is_none() && read(b"token", V1, at(0)).is_none());
        let other =
            format!(r#"{{"apiVersion":"{V1}beta1","kind":"ExecCredential","status":{{"token":"t"}}}}"#);
        assert!(read(other.as_bytes(), V1, at(0)).is_none(), "another version than was asked for");
    }
}
