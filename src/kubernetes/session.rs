//! Requests sent as whom we are: the credential, kept and had anew, and the connections that go with it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::access::{Access, Credential, Identity, read_token};
#[cfg(feature = "kubeconfig")]
use super::plugin::Runs;
use crate::{
    Result,
    backend::Moment,
    clock::{Clock, Limit},
    http::{self, Client, Failure, Request, Response, Tls},
};

/// How long what was read from a file is used. The kubelet replaces a token at 80 % of its life.
pub(super) const FRESH: Duration = Duration::from_secs(10);
/// All annotations of an object are 256 KiB, which JSON may make twice as much.
const LARGEST: usize = 4 * 1024 * 1024;

/// What all who use one access share.
#[derive(Default)]
pub(super) struct Session {
    state: Mutex<State>,
    /// A run of the plugin has ended.
    #[cfg(feature = "kubeconfig")]
    pub(super) told: std::sync::Condvar,
}

/// What was made of the settings, until a file is another one or a credential ends.
#[derive(Default)]
pub(super) struct State {
    pub(super) connection: Option<Connection>,
    pub(super) token: Option<String>,
    /// What a plugin gave besides.
    pub(super) issued: Option<Identity>,
    /// Until when the token counts; `None`: until it is refused.
    pub(super) until: Option<Moment>,
    #[cfg(feature = "kubeconfig")]
    pub(super) runs: Runs,
}

pub(super) struct Connection {
    client: Client,
    roots: Option<Vec<u8>>,
}

/// How a request is sent: for its answer, or for a stream.
pub(super) type Sender<'a> = dyn FnMut(&Client, &Request<'_>, Duration) -> Result<Response, Failure> + 'a;

impl Access {
    /// Sends a request, as whom we are. One whose credential is not accepted is sent once more with a fresh one.
    pub(super) fn send(
        &self,
        request: &Request<'_>,
        limit: Duration,
        send: &mut Sender<'_>,
    ) -> Result<Response> {
        let limit = Limit::after(&Clock::system(), limit);
        let (client, token) = self.prepare(&limit)?;
        let first = self.send_once(request, limit.remaining(), &client, token.as_deref(), send)?;
        if first.status != 401 {
            return Ok(first);
        }
        // What was refused is not used again; another of our threads may have a new one already.
        {
            let mut state = self.state();
            if state.token == token {
                state.until = Some(Clock::system().now());
            }
        }
        match self.prepare(&limit) {
            Ok((client, fresh)) if fresh != token || self.0.credential.is_of_a_plugin() => {
                self.send_once(request, limit.remaining(), &client, fresh.as_deref(), send)
            }
            _ => Ok(first),
        }
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        limit: Duration,
        client: &Client,
        token: Option<&str>,
        send: &mut Sender<'_>,
    ) -> Result<Response> {
        let url = format!("{}{}", self.0.server, request.url);
        let mut headers = request.headers.to_vec();
        headers.extend(self.0.impersonation.iter().map(|(name, value)| (*name, &**value)));
        let authorization = token.map(|token| format!("Bearer {token}"));
        headers.extend(authorization.iter().map(|value| ("Authorization", &**value)));
        let request = Request { url: &url, headers: &headers, ..*request };
        Ok(send(client, &request, limit)?)
    }

    /// Connections and the token to be sent. What cannot be had anew is used on, unless it has been refused.
    pub(super) fn prepare(&self, limit: &Limit) -> Result<(Client, Option<String>)> {
        let mut state = self.state();
        let now = Clock::system().now();
        match &self.0.credential {
            Credential::None => {}
            Credential::Token(token) => state.token = Some(token.clone()),
            Credential::TokenFile(_)
                if state.token.is_some() && state.until.is_some_and(|until| now < until) => {}
            Credential::TokenFile(path) => {
                match (read_token(path), &state.token) {
                    (Ok(token), _) => state.token = Some(token),
                    (Err(_), Some(_)) => {}
                    (Err(error), None) => return Err(error),
                }
                state.until = Some(now + FRESH);
                // The authority is another file of the same account.
                if let Ok(roots) = self.0.roots()
                    && state.connection.as_ref().is_some_and(|connection| connection.roots != roots)
                {
                    state.connection = None;
                }
            }
            #[cfg(feature = "kubeconfig")]
            Credential::Plugin(plugin) => state = self.ask(plugin, state, limit)?,
        }
        let _ = limit;
        Ok((self.client(&mut state)?, state.token.clone()))
    }

    /// A client with the authority and the certificate of now.
    pub(super) fn client(&self, state: &mut State) -> Result<Client> {
        if let Some(connection) = &state.connection {
            return Ok(connection.client.clone());
        }
        let roots = self.0.roots()?;
        let identity = state.issued.clone().or_else(|| self.0.client.clone());
        let tls = Tls { roots: roots.clone(), client: identity };
        let alias = self.0.alias.clone();
        let client =
            Client::new(&http::Settings { max_body: LARGEST, tls, alias, ..http::Settings::default() })?;
        state.connection = Some(Connection { client: client.clone(), roots });
        Ok(client)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.session.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
