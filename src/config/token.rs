//! Where tokens come from that do not last: the caller's source of them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Secret;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::SaslFailure;

/// Why a [source of tokens](crate::Endpoint::token_source) is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenRequest {
    /// A login begins: the token that is at hand will do, if it is still good.
    Current,
    /// The server did not accept the token that was given just before: it has expired, or was
    /// revoked. This is asked once.
    Fresh,
}

type Asked = Pin<Box<dyn Future<Output = Result<Secret, SaslFailure>> + Send>>;

/// The caller's source, shared by the clones of an endpoint.
#[derive(Clone)]
pub(crate) struct TokenSource {
    source: Arc<dyn Fn(TokenRequest) -> Asked + Send + Sync>,
    /// The token that it gave last: the server knows it, and may say it on a later connection.
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
            Error::new(ErrorKind::Auth, Phase::Auth, message).with_source(error)
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
