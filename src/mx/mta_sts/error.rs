//! [`FetchError`]: why a policy could not be fetched.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::dns::{DomainName, LookupError};
use crate::mx::tls_report::ResultType;
use crate::text::printable;

/// Why the policy of a domain could not be fetched.
///
/// `Display` writes what happened; [`hint`](Self::hint) is the next step.
#[derive(Clone)]
pub struct FetchError {
    domain: DomainName,
    kind: FetchErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The reason for which a policy could not be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchErrorKind {
    /// The trust anchors, or other settings of TLS on this side, cannot be used.
    Trust,
    /// The addresses of `mta-sts.DOMAIN` could not be looked up.
    Lookup,
    /// `mta-sts.DOMAIN` has no address.
    NoAddress,
    /// `mta-sts.DOMAIN` has no address that is [allowed](super::PolicyFetcher::address_filter).
    AddressRefused,
    /// No address accepts a connection.
    Connect,
    /// The server's certificate is not valid for `mta-sts.DOMAIN`.
    Certificate,
    /// The TLS handshake failed otherwise.
    Tls,
    /// The policy did not come in time.
    TimedOut,
    /// The server violates HTTP, or the connection was lost.
    Http,
    /// The server redirects, which is not allowed (RFC 8461, 3.3).
    Redirected,
    /// The server has no policy: status 404 or 410.
    NotFound,
    /// The server answers with another status than 200.
    Status,
    /// The media type is not `text/plain`.
    MediaType,
    /// The policy is larger than 64 KiB.
    TooLarge,
    /// What the server has is not a policy.
    Policy,
}

impl FetchError {
    pub(super) fn new(
        domain: &DomainName,
        kind: FetchErrorKind,
        message: impl Into<String>,
    ) -> Self {
        FetchError {
            domain: domain.clone(),
            kind,
            message: printable(message.into()),
            source: None,
        }
    }

    pub(super) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The domain whose policy it is.
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// The reason.
    pub fn kind(&self) -> FetchErrorKind {
        self.kind
    }

    /// The result type of TLS reports (RFC 8460, 4.3).
    pub fn result_type(&self) -> ResultType {
        match self.kind {
            FetchErrorKind::Certificate => ResultType::StsWebpkiInvalid,
            FetchErrorKind::Policy => ResultType::StsPolicyInvalid,
            _ => ResultType::StsPolicyFetchError,
        }
    }

    /// Whether it does not concern the domain.
    pub(super) fn is_of_this_side(&self) -> bool {
        let source = self.source.as_ref();
        let lookup: Option<&LookupError> = source.and_then(|source| source.downcast_ref());
        self.kind == FetchErrorKind::Trust || lookup.is_some_and(LookupError::is_of_resolver)
    }

    /// What to do.
    pub fn hint(&self) -> String {
        let hint = match self.kind {
            FetchErrorKind::Trust => {
                "Check the trust anchors and the other settings of TLS on this side."
            }
            FetchErrorKind::Lookup => "Try again later. Check the name servers of the domain.",
            FetchErrorKind::NoAddress => {
                "The domain's administrator must publish an A or AAAA record for mta-sts.{domain}, \
                 or remove the TXT record of _mta-sts.{domain}."
            }
            FetchErrorKind::AddressRefused => {
                "The domain names a web server at an address that may not be connected to: its \
                 administrator must give it a public one, or this side allow it (public_only, \
                 address_filter)."
            }
            FetchErrorKind::Connect => {
                "The web server for mta-sts.{domain} must accept connections on port 443. Check \
                 that this machine may connect to that port."
            }
            FetchErrorKind::Certificate => {
                "The web server needs a certificate for mta-sts.{domain} that is valid now, with \
                 its intermediate certificates. If its authority is your own, trust it \
                 (Trust::path)."
            }
            FetchErrorKind::Tls => {
                "The web server for mta-sts.{domain} must speak TLS 1.2 or 1.3 on port 443."
            }
            FetchErrorKind::TimedOut => {
                "The web server for mta-sts.{domain} must answer within a minute. Try again later."
            }
            FetchErrorKind::Http => {
                "The web server for mta-sts.{domain} must answer by HTTP/1.1, without compression, \
                 and end the connection in order."
            }
            FetchErrorKind::Redirected => {
                "The web server must have the policy itself at \
                 https://mta-sts.{domain}/.well-known/mta-sts.txt: senders do not follow redirects."
            }
            FetchErrorKind::NotFound => {
                "The domain's administrator must publish the policy at \
                 https://mta-sts.{domain}/.well-known/mta-sts.txt, or remove the TXT record of \
                 _mta-sts.{domain}."
            }
            FetchErrorKind::Status => {
                "The web server must answer with the status 200 to any client. Its log says more."
            }
            FetchErrorKind::MediaType => {
                "The web server must send the policy as text/plain (the header Content-Type)."
            }
            FetchErrorKind::TooLarge => "The policy must be shorter: list fewer hosts, or use *.",
            FetchErrorKind::Policy => {
                "The domain's administrator must correct the policy: RFC 8461, 3.2 has the form."
            }
        };
        hint.replace("{domain}", self.domain.as_str())
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FetchError {
            domain,
            kind,
            message,
            ..
        } = self;
        let what = match kind {
            FetchErrorKind::Policy => "is not valid",
            _ => "could not be fetched",
        };
        write!(f, "the MTA-STS policy of {domain} {what}: {message}")
    }
}

impl fmt::Debug for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchError")
            .field("domain", &self.domain)
            .field("kind", &self.kind)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl StdError for FetchError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_ref()?;
        Some(source.as_ref())
    }
}
