//! What may be written: the state of a session.

/// The state of a session, as the [drawing](super#what-is-written) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing may be written: the server speaks first.
    Greeting,
    /// EHLO, HELO or LHLO was sent.
    Hello,
    /// STARTTLS was sent.
    StartTls,
    /// The driver makes the TLS handshake.
    Upgrade,
    /// No transaction is being written. Messages that were handed over may await their replies.
    Ready,
    /// A login is under way.
    Authenticating,
    /// MAIL, RCPT and DATA are being written, as far as [`Next`](super::transaction::Next) says.
    Transaction,
    /// The message is being written.
    Body,
    /// QUIT was sent.
    Quitting,
    /// The server refused the session: only QUIT may be sent.
    Refused,
    /// 421 came, and messages that were handed over await their replies. Nothing may be written.
    Ending,
    /// The session is over.
    Closed,
}

impl State {
    /// The session goes on, and no transaction is being written.
    #[cfg(feature = "client")]
    pub(super) fn is_between_transactions(self) -> bool {
        matches!(self, State::Ready | State::Authenticating | State::Quitting)
    }
}
