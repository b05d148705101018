//! The source of OAuth 2 tokens, which expire.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Secret;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::{SaslFailure, Secrets};

/// Why a [token source](crate::Endpoint::token_source) is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenRequest {
    /// A login begins: a cached token may be returned if it is still valid.
    Current,
    /// The server did not accept the token that was returned just before: it has expired or was
    /// revoked. Requested once.
    Fresh,
}

type Asked = Pin<Box<dyn Future<Output = Result<Secret, SaslFailure>> + Send>>;

/// The token source of the caller, shared by the clones of an endpoint.
#[derive(Clone)]
pub(crate) struct TokenSource {
    source: Arc<dyn Fn(TokenRequest) -> Asked + Send + Sync>,
    /// The last token: the server knows it, and may echo it on a later connection.
    last: Arc<Mutex<Option<Secret>>>,
}

impl TokenSource {
    pub(crate) fn new<F, T, E>(source: impl Fn(TokenRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Into<Secret>,
        E: Into<SaslFailure>,
    {
        let source = Arc::new(move |request| -> Asked {
            let asked = source(request);
            Box::pin(async move { asked.await.map(Into::into).map_err(Into::into) })
        });
        TokenSource {
            source,
            last: Arc::default(),
        }
    }

    pub(crate) async fn ask(&self, request: TokenRequest) -> Result<Secret> {
        let token = (self.source)(request).await.map_err(|error| {
            let message = format!("no token can be had to log in with: {error}");
            let error = Error::new(ErrorKind::Auth, Phase::Auth, message).with_source(error);
            // The source may name the token that the server refused.
            let mut secrets = Secrets::default();
            if let Some(last) = self.last() {
                secrets.add_with_base64(last.expose());
            }
            error.redacted(&secrets)
        })?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }

    pub(crate) fn last(&self) -> Option<Secret> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
