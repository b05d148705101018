//! How long the server may take, by phase and in all.

use std::time::Duration;

use crate::error::Phase;

/// Time limits. Each bounds the wait for one reply as a whole: a server that sends a byte now and
/// then does not get more.
///
/// The defaults are those of RFC 5321, 4.5.3.2, which suit a server that is slow and alive;
/// [`Timeouts::uniform`] gives a program that has somebody waiting one number for all.
///
/// ```
/// use std::time::Duration;
/// use envoi::Timeouts;
///
/// let timeouts = Timeouts::uniform(Duration::from_secs(20));
/// assert_eq!(timeouts.greeting, Duration::from_secs(20));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Name lookup and connecting, all addresses together; 30 seconds by default.
    pub connect: Duration,
    /// The TLS handshake; 1 minute by default.
    pub tls: Duration,
    /// The greeting; 5 minutes by default.
    pub greeting: Duration,
    /// The answer to a command, or to a response in a login; 5 minutes by default.
    pub command: Duration,
    /// A login as a whole, with all its challenges and all mechanisms that are tried; 5 minutes by
    /// default. The time that a source of tokens takes does not count.
    pub login: Duration,
    /// The go-ahead for the message; 2 minutes by default.
    pub data: Duration,
    /// How long the server may take nothing of the message; 3 minutes by default.
    pub body: Duration,
    /// The final reply to the message; 10 minutes by default.
    pub end_of_data: Duration,
    /// The answer to QUIT, which changes nothing and is waited for by
    /// [`Connection::quit`](crate::Connection::quit) alone; 1 second by default.
    pub quit: Duration,
    /// Bytes a second that the server must take of the message on average, 500 by default; the time
    /// that the message's own source takes does not count.
    pub min_rate: u64,
    /// All waiting for the server together, from connecting to the last reply of a message, except
    /// while the message itself goes; 1 hour by default, and [more for each
    /// recipient](Self::total_wait_per_recipient).
    pub total_wait: Option<Duration>,
    /// So much longer may all [waiting](Self::total_wait) take for each recipient of a message;
    /// half a minute by default. A server cannot make use of the limit for a command once for each
    /// of a thousand recipients then.
    pub total_wait_per_recipient: Duration,
    /// The whole call, from its beginning: preparing the message (a file may be slow to read),
    /// connecting and the message itself included; no limit by default. In
    /// [`send_all`](crate::Connection::send_all), each message has it from when it is taken from
    /// the stream.
    pub deadline: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Timeouts {
            connect: Duration::from_secs(30),
            tls: minutes(1),
            greeting: minutes(5),
            command: minutes(5),
            login: minutes(5),
            data: minutes(2),
            body: minutes(3),
            end_of_data: minutes(10),
            quit: Duration::from_secs(1),
            min_rate: 500,
            total_wait: Some(minutes(60)),
            total_wait_per_recipient: Duration::from_secs(30),
            deadline: None,
        }
    }
}

impl Timeouts {
    /// One limit for connecting, the handshake, each reply and a message that does not move;
    /// everything but the message itself may take four times as long in all.
    pub fn uniform(limit: Duration) -> Self {
        let all = limit.saturating_mul(4);
        Timeouts {
            connect: limit,
            tls: limit,
            greeting: limit,
            command: limit,
            login: all,
            data: limit,
            body: limit,
            end_of_data: limit,
            quit: limit.min(Duration::from_secs(1)),
            min_rate: 500,
            total_wait: Some(all),
            total_wait_per_recipient: Duration::ZERO,
            deadline: None,
        }
    }

    /// The same limits, and one for the whole call.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    pub(crate) fn limit(&self, phase: Phase) -> Duration {
        match phase {
            Phase::Connect => self.connect,
            Phase::Tls => self.tls,
            Phase::Greeting => self.greeting,
            Phase::Data => self.data,
            Phase::Body => self.body,
            Phase::EndOfData => self.end_of_data,
            Phase::Quit => self.quit,
            Phase::Setup
            | Phase::Hello
            | Phase::StartTls
            | Phase::Auth
            | Phase::Mail
            | Phase::Rcpt
            | Phase::Reset
            | Phase::Noop
            | Phase::Command => self.command,
        }
    }
}
