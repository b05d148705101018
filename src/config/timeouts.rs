//! The time-outs, for each phase and in total.

use std::time::Duration;

use crate::error::Phase;

/// Time-outs. Each one bounds the wait for a reply as a whole: a server that sends single bytes
/// does not extend it.
///
/// The defaults are those of RFC 5321, 4.5.3.2, which suit a slow but responsive server.
/// [`Timeouts::uniform`] sets a single time-out for everything, for interactive programs.
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
    /// Name resolution and connecting, all addresses together; 30 seconds by default.
    pub connect: Duration,
    /// The TLS handshake; 1 minute by default.
    pub tls: Duration,
    /// The greeting; 5 minutes by default.
    pub greeting: Duration,
    /// The reply to a command, or to a response in a login; 5 minutes by default.
    pub command: Duration,
    /// A login as a whole, with all its challenges and all mechanisms that are tried; 5 minutes by
    /// default. The time that a token source takes does not count.
    pub login: Duration,
    /// The reply to DATA; 2 minutes by default.
    pub data: Duration,
    /// The maximum time in which the server accepts no byte of the message; 3 minutes by default.
    pub body: Duration,
    /// The final reply to the message; 10 minutes by default.
    pub end_of_data: Duration,
    /// The reply to QUIT, which has no effect and which only
    /// [`Connection::quit`](crate::Connection::quit) waits for; 1 second by default.
    pub quit: Duration,
    /// The minimum average rate at which the server must accept the message, in bytes a second; 500
    /// by default. The time that the source of the message takes does not count.
    pub min_rate: u64,
    /// The maximum total time of waiting for the server, from connecting to the last reply to a
    /// message, except while the message itself is sent; 1 hour by default, and [more for each
    /// recipient](Self::total_wait_per_recipient).
    pub total_wait: Option<Duration>,
    /// The time that is added to [`total_wait`](Self::total_wait) for each recipient of a message;
    /// half a minute by default. So a server cannot use up the time-out for a command once for each
    /// of a thousand recipients.
    pub total_wait_per_recipient: Duration,
    /// The deadline of the whole call, from its start: it includes preparing the message (reading a
    /// file may be slow), connecting and sending the message. None by default. In
    /// [`send_all`](crate::Connection::send_all), each message has its own, from when it is taken
    /// from the stream.
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
    /// Sets a single time-out for connecting, the handshake, each reply and a message that makes no
    /// progress. Everything except the message may take four times as long in total.
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

    /// Adds a deadline for the whole call.
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
            // The server is not waited for.
            Phase::Handover => Duration::MAX,
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
