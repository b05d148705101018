//! Failures, as data for people and for programs.
//!
//! A single [`Error`]: its [`ErrorKind`] determines what can be done about it, its [`Phase`] is
//! where it occurred, [`Error::reply`] has the server's reply and [`Error::hint`] the next step.
//! This module contains plain data only; `diagnose` makes errors from their causes and adds the
//! advice.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

pub use crate::proto::Phase;
use crate::proto::Reply;
#[cfg(feature = "client")]
use crate::proto::Secrets;
use crate::text::printable;

/// The kind of a failure, which decides what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is invalid: an address, a header, a URL, a call out of order. Nothing was
    /// sent.
    Request,
    /// The message cannot be read: a file is missing, or a stream failed.
    Input,
    /// The configuration cannot be used, for example a trust store that cannot be read.
    Config,
    /// No connection to the server: its name was not found, it refused, or it cannot be reached.
    Connect,
    /// The connection ended or failed before the session was complete.
    Closed,
    /// A time-out: of the server, of waiting for a connection of a pool, or of the whole call.
    Timeout,
    /// The peer violates SMTP: an unsolicited reply, one that cannot be parsed, or one beyond a
    /// limit.
    Protocol,
    /// TLS could not be established as the policy requires.
    Tls,
    /// Credentials would have to be sent over an unprotected connection.
    Insecure,
    /// The server did not accept the login or offers no usable mechanism, or a proxy requires
    /// another login.
    Auth,
    /// The server refused the session, the sender, every recipient, or the message.
    Refused,
    /// The server lacks an extension that the message needs, or the message exceeds its size limit.
    Unsupported,
    /// The callback of `Message::on_handover` returned an error, which is the
    /// [source](StdError::source): the message was not sent. The error is not transient, as only
    /// the program knows whether its cause will pass, so `RetryPolicy` does not retry it.
    Handover,
    /// The pool was closed, as at the end of a program. Nothing was sent, and the message can go
    /// through another pool. The error is transient, but `RetryPolicy` does not retry it, since
    /// this pool stays closed.
    PoolClosed,
}

impl ErrorKind {
    /// Returns the kind as one lower-case word for logs and JSON.
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
            ErrorKind::Handover => "hand-over",
            ErrorKind::PoolClosed => "pool-closed",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: what happened, in which phase, the server's reply and the next step.
///
/// `Display` writes all of it in one line; each part has a getter.
///
/// ```
/// let error = envoi::Error::from(envoi::Address::new("no at sign").unwrap_err());
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
    /// Whether the cause will pass by itself, where kind and reply do not say so.
    transient: Option<bool>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    #[cfg(feature = "client")]
    receipt: Option<Box<crate::Receipt>>,
}

/// `Result` with envoi's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind. envoi makes its own; programs need it to test how they handle errors,
    /// or to return from code that stands in for a client.
    ///
    /// ```
    /// use envoi::{Error, ErrorKind, Phase};
    ///
    /// /// The code under test: what goes back into the queue.
    /// fn again(error: &Error) -> bool {
    ///     error.is_transient() && !error.outcome_unknown()
    /// }
    ///
    /// let lost = Error::new(ErrorKind::Closed, Phase::EndOfData, "the connection was closed");
    /// assert!(!again(&lost.with_outcome_unknown(true)));
    /// let busy = Error::new(ErrorKind::Refused, Phase::Mail, "the server refused the sender");
    /// assert!(again(&busy.with_reply("451 4.3.0 Try again later".parse()?)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(kind: ErrorKind, phase: Phase, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind,
            phase,
            message: printable(message.into()),
            hint: None,
            reply: None,
            outcome_unknown: false,
            transient: None,
            source: None,
            #[cfg(feature = "client")]
            receipt: None,
        }))
    }

    /// An invalid request, found before anything was sent.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Request, Phase::Setup, message)
    }

    /// A refusal by the server. The advice depends on the session, which adds it.
    #[cfg(feature = "client")]
    pub(crate) fn refused(
        kind: ErrorKind,
        phase: Phase,
        message: impl Into<String>,
        reply: Reply,
    ) -> Self {
        Self::new(kind, phase, message).with_reply(reply)
    }

    /// Sets the [hint](Self::hint).
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(printable(hint.into()));
        self
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_hint_if(mut self, hint: Option<&str>) -> Self {
        self.0.hint = hint.map(str::to_owned);
        self
    }

    /// Sets the server's [reply](Self::reply).
    #[must_use]
    pub fn with_reply(mut self, reply: Reply) -> Self {
        self.0.reply = Some(reply);
        self
    }

    /// Redacts secrets in the message and in its source.
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
                // The text is kept, without the type.
                let first = secrets.redacted(&words[0]);
                return self.with_source(first.unwrap_or_else(|| words[0].clone()));
            }
        }
        self
    }

    /// Whether the server refused the sender, a recipient or the message, and not the session: 421
    /// (RFC 5321, 3.8) and 530 (RFC 4954, 6) may answer any command.
    #[cfg(any(feature = "failover", feature = "journal"))]
    pub(crate) fn is_refusal_of_message(&self) -> bool {
        self.kind() == ErrorKind::Refused
            && self.phase().is_of_message()
            && !matches!(self.reply().map(Reply::code), Some(421 | 530))
    }

    pub(crate) fn set_outcome_unknown(&mut self, unknown: bool) {
        self.0.outcome_unknown = unknown;
    }

    /// Sets whether the cause will pass by itself, whatever kind and reply say.
    #[cfg(feature = "client")]
    pub(crate) fn set_transient(&mut self, transient: bool) {
        self.0.transient = Some(transient);
    }

    /// Makes it a failure of TLS, where TLS is a must and did not come about.
    #[cfg(feature = "mx")]
    pub(crate) fn of_tls(mut self) -> Self {
        self.0.kind = ErrorKind::Tls;
        self.0.phase = Phase::Tls;
        self
    }

    /// Replaces the message.
    #[cfg(feature = "mx")]
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = printable(message.into());
        self
    }

    /// Prefixes the message with what it concerns.
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = printable(format!("{what}: {}", self.0.message));
        self
    }

    /// Adds the I/O error for which the connection ended: as the source, and to the message where
    /// it says more than that the connection ended.
    #[cfg(feature = "client")]
    pub(crate) fn with_io_error(mut self, cause: std::io::Error) -> Self {
        use std::io::ErrorKind as E;
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

    /// Sets the [source](StdError::source).
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Sets the [receipt](Self::receipt).
    #[cfg(feature = "client")]
    #[must_use]
    pub fn with_receipt(mut self, receipt: crate::Receipt) -> Self {
        self.0.receipt = Some(Box::new(receipt));
        self
    }

    #[cfg(feature = "client")]
    pub(crate) fn take_receipt(&mut self) -> Option<crate::Receipt> {
        self.0.receipt.take().map(|receipt| *receipt)
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the phase in which it happened.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }

    /// Returns what happened, without the hint, and without the server's reply unless it is about
    /// several servers, each of which is named with its reply.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The message and the server's reply, without the hint. A message about several servers has
    /// their replies already.
    pub(crate) fn event(&self) -> String {
        let message = self.message();
        let reply = self.reply().map(ToString::to_string).unwrap_or_default();
        match message.contains(&reply) {
            true => message.to_owned(),
            false => format!("{message}; the server said: {reply}"),
        }
    }

    /// Returns the next step, where there is advice.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the server's reply that caused the failure, if a reply did.
    pub fn reply(&self) -> Option<&Reply> {
        self.0.reply.as_ref()
    }

    /// Returns what is known of the transfer: the recipients' outcomes, the TLS in use, bytes and
    /// time. `None` if none was started: the request was invalid, or a pooled connection was no
    /// longer usable.
    #[cfg(feature = "client")]
    pub fn receipt(&self) -> Option<&crate::Receipt> {
        self.0.receipt.as_deref()
    }

    /// Whether the message may have been delivered: it was handed over whole, and no well-formed
    /// final reply came (RFC 5321, 4.1.1.4 and 6.1), or, in LMTP, not for every recipient. Neither
    /// a retry nor giving up is safe.
    pub fn outcome_unknown(&self) -> bool {
        self.0.outcome_unknown
    }

    /// Whether the same request may succeed later: after a 4xx reply, without a connection, after a
    /// lost connection, a time-out, or the end of a pool. Never true if the [outcome is
    /// unknown](Self::outcome_unknown).
    pub fn is_transient(&self) -> bool {
        if self.0.outcome_unknown {
            return false;
        }
        match (self.0.transient, &self.0.reply) {
            (Some(transient), _) => transient,
            (None, Some(reply)) => reply.is_transient(),
            (None, None) => matches!(
                self.0.kind,
                ErrorKind::Connect | ErrorKind::Closed | ErrorKind::Timeout | ErrorKind::PoolClosed
            ),
        }
    }

    /// Whether the same request will fail again until something is changed. Never true if the
    /// [outcome is unknown](Self::outcome_unknown).
    pub fn is_permanent(&self) -> bool {
        !self.0.outcome_unknown && !self.is_transient()
    }

    /// Returns the exit code of a command-line program that fails with this error, from sysexits.h:
    /// 64 for a bad request, 66 for unreadable input, 69 for a permanent refusal, 75 for a
    /// transient failure, 74 for a hand-over that the program did not permit, 76 for TLS and
    /// protocol violations, 77 for a failed login, 78 for the configuration; 79, which sysexits.h
    /// does not use, if the outcome is unknown.
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            _ if self.outcome_unknown() => 79,
            ErrorKind::Request => 64,
            ErrorKind::Input => 66,
            ErrorKind::Config => 78,
            ErrorKind::Handover => 74,
            ErrorKind::Protocol | ErrorKind::Insecure => 76,
            _ if self.is_transient() => 75,
            ErrorKind::Tls => 76,
            ErrorKind::Auth => 77,
            ErrorKind::Connect
            | ErrorKind::Closed
            | ErrorKind::Timeout
            | ErrorKind::Refused
            | ErrorKind::Unsupported
            | ErrorKind::PoolClosed => 69,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event();
        f.write_str(&event)?;
        if let Some(hint) = &self.0.hint {
            // Servers end their sentences in different ways.
            let stop = if event.ends_with(['.', '!', '?']) {
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
