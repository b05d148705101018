//! What went wrong, said to people and to programs.
//!
//! One [`Error`] for the whole crate: its [`ErrorKind`] says what to do about it, its [`Phase`]
//! where it came up, [`Error::reply`] has the server's own words and [`Error::hint`] the next step.
//! This module knows plain data only: how a failure is made from its cause, and what is advised, is
//! the business of `diagnose`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

pub use crate::proto::Phase;
use crate::proto::Reply;
#[cfg(feature = "client")]
use crate::proto::Secrets;
use crate::text::printable;

/// What sort of failure it is, and so what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is bad: an address, a header, a URL, a call out of order. Nothing was
    /// sent.
    Request,
    /// An input of the message cannot be read: a file that is missing, or a stream that failed.
    Input,
    /// The configuration cannot be used: a trust store that cannot be read, for example.
    Config,
    /// No connection to the server: its name was not found, or it refused, or it cannot be reached.
    Connect,
    /// The connection ended or failed before the conversation did.
    Closed,
    /// The server, the wait for a connection of a pool, or the whole call took longer than allowed.
    Timeout,
    /// The peer does not keep to SMTP: a reply that nobody asked for, one that cannot be read, or
    /// one past a limit.
    Protocol,
    /// TLS could not be established as the policy demands.
    Tls,
    /// Credentials would have to cross an unprotected connection.
    Insecure,
    /// The server did not accept the login, or offers no mechanism that can be used; or a proxy
    /// wants another login.
    Auth,
    /// The server refused: the session, the sender, every recipient, or the message.
    Refused,
    /// The server lacks an extension that the message needs, or the message is larger than it
    /// takes.
    Unsupported,
    /// The pool was closed, as at the end of a program: nothing was sent, and the message can go by
    /// another pool, or by the program that takes over. It is transient, and yet not tried again by
    /// `RetryPolicy`, as this pool stays closed.
    PoolClosed,
}

impl ErrorKind {
    /// The kind as one lower-case word, as logs and JSON have it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Request => "request",
            ErrorKind::Input => "input",
            ErrorKind::Config => "config",
            ErrorKind::Connect => "connect",
            ErrorKind::Closed => "closed",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Protocol => "protocol",
            ErrorKind::Tls => "tls",
            ErrorKind::Insecure => "insecure",
            ErrorKind::Auth => "auth",
            ErrorKind::Refused => "refused",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::PoolClosed => "pool-closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: what happened, in which phase, the server's words and what to do now.
///
/// `Display` gives all of it in one line; the parts can be had one by one.
///
/// ```
/// let error = envoi::Address::new("no at sign").unwrap_err();
/// assert_eq!(error.kind(), envoi::ErrorKind::Request);
/// assert!(error.is_permanent());
/// println!("{error}");
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    phase: Phase,
    message: String,
    hint: Option<String>,
    reply: Option<Reply>,
    outcome_unknown: bool,
    /// The reply's code is one for the moment, and what it is about will not pass by itself.
    lasts: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    #[cfg(feature = "client")]
    receipt: Option<Box<crate::Receipt>>,
}

/// `Result` with envoi's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, phase: Phase, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            phase,
            message: printable(message.into()),
            hint: None,
            reply: None,
            outcome_unknown: false,
            lasts: false,
            source: None,
            #[cfg(feature = "client")]
            receipt: None,
        }))
    }

    /// A request that is bad in itself, found before anything was sent.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Request, Phase::Setup, message)
    }

    /// The server's refusal. What to do about it depends on the session, which adds it.
    #[cfg(feature = "client")]
    pub(crate) fn refused(
        kind: ErrorKind,
        phase: Phase,
        message: impl Into<String>,
        reply: Reply,
    ) -> Self {
        Self::new(kind, phase, message).with_reply(reply)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(printable(hint.into()));
        self
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_hint_if(mut self, hint: Option<&str>) -> Self {
        self.0.hint = hint.map(str::to_owned);
        self
    }

    pub(crate) fn with_reply(mut self, reply: Reply) -> Self {
        self.0.reply = Some(reply);
        self
    }

    /// Removes secrets from the message, and from what caused it.
    #[cfg(feature = "client")]
    pub(crate) fn redacted(mut self, secrets: &Secrets) -> Self {
        if let Some(redacted) = secrets.redacted(&self.0.message) {
            self.0.message = redacted;
        }
        if let Some(source) = &self.0.source {
            let first: &(dyn StdError + 'static) = source.as_ref();
            let causes = std::iter::successors(Some(first), |cause| (*cause).source());
            let words: Vec<String> = causes
                .flat_map(|cause| [format!("{cause}"), format!("{cause:?}")])
                .collect();
            if words.iter().any(|words| secrets.redacted(words).is_some()) {
                // Its words are left, without its type.
                let first = secrets.redacted(&words[0]);
                return self.with_source(first.unwrap_or_else(|| words[0].clone()));
            }
        }
        self
    }

    pub(crate) fn set_outcome_unknown(&mut self, unknown: bool) {
        self.0.outcome_unknown = unknown;
    }

    /// Marks a failure that will not pass by itself, whatever the reply's code says.
    #[cfg(feature = "client")]
    pub(crate) fn set_lasts(&mut self, lasts: bool) {
        self.0.lasts = lasts;
    }

    /// What it concerns, before what happened.
    #[cfg(feature = "client")]
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = printable(format!("{what}: {}", self.0.message));
        self
    }

    /// The connection broke, which is why it ended: how it did belongs to what is said.
    #[cfg(feature = "client")]
    pub(crate) fn with_io_error(mut self, cause: std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        // The others say no more than that it ended.
        let tells = matches!(
            cause.kind(),
            E::ConnectionReset
                | E::ConnectionAborted
                | E::TimedOut
                | E::HostUnreachable
                | E::NetworkUnreachable
        );
        if self.0.kind == ErrorKind::Closed && self.0.reply.is_none() && tells {
            self.0.message = printable(format!("{} ({cause})", self.0.message));
        }
        self.with_source(cause)
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_receipt(mut self, receipt: crate::Receipt) -> Self {
        self.0.receipt = Some(Box::new(receipt));
        self
    }

    #[cfg(feature = "client")]
    pub(crate) fn take_receipt(&mut self) -> Option<crate::Receipt> {
        self.0.receipt.take().map(|receipt| *receipt)
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where it came up.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// What happened, without the server's words and the hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do now, where something can be advised.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The server's reply that caused the failure, if a reply did.
    pub fn reply(&self) -> Option<&Reply> {
        self.0.reply.as_ref()
    }

    /// How far the message came: the recipients' outcomes, the TLS in use, bytes and time. `None`
    /// where it did not get on its way: a request that is bad in itself, or a kept connection that
    /// is of no use any more.
    #[cfg(feature = "client")]
    pub fn receipt(&self) -> Option<&crate::Receipt> {
        self.0.receipt.as_deref()
    }

    /// The message may or may not have been delivered: it was handed over whole, and no well-formed
    /// final reply came (RFC 5321, 4.1.1.4 and 6.1), or, in LMTP, not for every recipient. Neither
    /// retrying nor giving up is right by itself.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// The same request may work later: a 4xx reply, no connection, a connection that was lost, a
    /// timeout, a pool that was closed. Never true where the [outcome is
    /// unknown](Self::outcome_unknown).
    pub fn is_transient(&self) -> bool {
        if self.0.outcome_unknown {
            return false;
        }
        match &self.0.reply {
            Some(reply) => reply.is_transient() && !self.0.lasts,
            None => matches!(
                self.0.kind,
                ErrorKind::Connect | ErrorKind::Closed | ErrorKind::Timeout | ErrorKind::PoolClosed
            ),
        }
    }

    /// The same request will fail again until somebody changes something. Never true where the
    /// [outcome is unknown](Self::outcome_unknown).
    pub fn is_permanent(&self) -> bool {
        !self.0.outcome_unknown && !self.is_transient()
    }

    /// Returns the exit code of a command-line program that fails with this error, from sysexits.h:
    /// 64 for a bad request, 66 for unreadable input, 69 for a permanent refusal, 75 for a
    /// transient failure, 76 for TLS and protocol violations, 77 for a failed login, 78 for the
    /// configuration; 79, which sysexits.h does not use, if the outcome is unknown.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            _ if self.outcome_unknown() => 79,
            ErrorKind::Request => 64,
            ErrorKind::Input => 66,
            ErrorKind::Config => 78,
            ErrorKind::Protocol | ErrorKind::Insecure => 76,
            _ if self.is_transient() => 75,
            ErrorKind::Tls => 76,
            ErrorKind::Auth => 77,
            _ => 69,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let reply = self
            .0
            .reply
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        if !reply.is_empty() {
            write!(f, "; the server said: {reply}")?;
        }
        if let Some(hint) = &self.0.hint {
            // Servers end their sentences as they like.
            let stop = if reply.ends_with(['.', '!', '?']) {
                ""
            } else {
                "."
            };
            write!(f, "{stop} {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Error");
        fields
            .field("kind", &self.0.kind)
            .field("phase", &self.0.phase)
            .field("message", &self.0.message);
        if let Some(reply) = &self.0.reply {
            fields.field("reply", &format_args!("{reply}"));
        }
        if self.0.outcome_unknown {
            fields.field("outcome_unknown", &true);
        }
        if let Some(source) = &self.0.source {
            fields.field("source", source);
        }
        if let Some(hint) = &self.0.hint {
            fields.field("hint", hint);
        }
        fields.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}
