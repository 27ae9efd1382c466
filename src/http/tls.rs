//! Whom a store's connections trust, and who they say they are.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// Roots and a certificate of one's own; each PEM, of one certificate or more. Without roots: the machine's.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    pub(crate) roots: Option<Vec<u8>>,
    /// A chain, the client's own certificate first, and its key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// # Errors
    /// `Config`, saying which of it cannot be read. What was given is not repeated: it may be a key.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    pub(super) fn check(&self) -> Result<()> {
        if let Some(pem) = &self.roots {
            certificates(pem).map_err(|why| config(format!("the CA's certificate: {why}")))?;
        }
        if let Some((chain, key)) = &self.client {
            certificates(chain).map_err(|why| config(format!("the client's certificate: {why}")))?;
            ureq::tls::PrivateKey::from_pem(key)
                .map_err(|_| config("the client's key: it is no private key in PEM".to_owned()))?;
        }
        Ok(())
    }

    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    pub(super) fn check(&self) -> Result<()> {
        if self.roots.is_none() && self.client.is_none() {
            return Ok(());
        }
        Err(config("certificates need the feature `rustls` or `native-tls` of leasehold".to_owned()))
    }

    /// What is compiled in, rustls first: a wrong pair of provider and roots would panic in ureq. What cannot be read
    /// is refused before.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    pub(super) fn config(&self) -> ureq::tls::TlsConfig {
        use ureq::tls::{ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};
        let provider = if cfg!(feature = "rustls") { TlsProvider::Rustls } else { TlsProvider::NativeTls };
        let roots = self.roots.as_ref().and_then(|pem| certificates(pem).ok());
        let client = self.client.as_ref().and_then(|(chain, key)| {
            let (chain, key) = (certificates(chain).ok()?, PrivateKey::from_pem(key).ok()?);
            Some(ClientCert::new_with_certs(&chain, key))
        });
        TlsConfig::builder()
            .provider(provider)
            .root_certs(roots.map_or(RootCerts::PlatformVerifier, RootCerts::from))
            .client_cert(client)
            .build()
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn certificates(pem: &[u8]) -> Result<Vec<ureq::tls::Certificate<'static>>, &'static str> {
    use ureq::tls::{PemItem, parse_pem};
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(_) => return Err("it is not PEM"),
        }
    }
    if found.is_empty() { Err("there is none in the PEM") } else { Ok(found) }
}

fn config(what: String) -> Error {
    Error::new(ErrorKind::Config, what)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("roots", &self.roots.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}
