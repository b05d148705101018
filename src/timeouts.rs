//! How long the server may take, by phase and in all.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Phase;

/// Time limits. Each bounds the wait for one reply as a whole: a server that sends a byte now and then does not get more.
///
/// The defaults are those of RFC 5321, 4.5.3.2, which suit a server that is slow and alive;
/// [`Timeouts::of`] gives a program that has somebody waiting one number for all.
///
/// ```
/// use std::time::Duration;
/// use envoi::Timeouts;
///
/// let timeouts = Timeouts::of(Duration::from_secs(20));
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
    /// The answer to a command; 5 minutes by default.
    pub command: Duration,
    /// The go-ahead for the message; 2 minutes by default.
    pub data: Duration,
    /// How long the server may take nothing of the message; 3 minutes by default.
    pub body: Duration,
    /// The final reply to the message; 10 minutes by default.
    pub end_of_data: Duration,
    /// The answer to QUIT, which changes nothing and is waited for by [`Connection::quit`](crate::Connection::quit) alone; 1 second by default.
    pub quit: Duration,
    /// Bytes a second that the server must take of the message on average, 500 by default; the time
    /// that the message's own source takes does not count.
    pub min_rate: u64,
    /// All waiting for the server together, from connecting to the last reply of a message, except while the message itself
    /// goes; no limit by default.
    pub waiting: Option<Duration>,
    /// The whole call, the message included; no limit by default.
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
            data: minutes(2),
            body: minutes(3),
            end_of_data: minutes(10),
            quit: Duration::from_secs(1),
            min_rate: 500,
            waiting: None,
            deadline: None,
        }
    }
}

impl Timeouts {
    /// One limit for connecting, the handshake, each reply and a message that does not move; everything but the message itself
    /// may take four times as long in all.
    pub fn of(limit: Duration) -> Self {
        Timeouts {
            connect: limit,
            tls: limit,
            greeting: limit,
            command: limit,
            data: limit,
            body: limit,
            end_of_data: limit,
            quit: limit.min(Duration::from_secs(1)),
            min_rate: 500,
            waiting: Some(limit.saturating_mul(4)),
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
            _ => self.command,
        }
    }
}

/// What is left of the limits that span several phases.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    deadline: Option<Instant>,
    /// Of [`Timeouts::waiting`].
    left: Option<Duration>,
}

/// When a wait must end, and which limit says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) at: Instant,
    pub(crate) why: LimitKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    Phase,
    Waiting,
    Deadline,
}

/// Further away than anybody waits, and within what the timer can count.
pub(crate) const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

impl Clock {
    /// Begins to count now.
    pub(crate) fn start(timeouts: &Timeouts) -> Self {
        let deadline = timeouts.deadline.map(|deadline| Instant::now() + deadline.min(FAR));
        Clock { deadline, left: timeouts.waiting }
    }

    /// When a wait that began at `since` and may take `limit` ends, unless another limit comes first.
    pub(crate) fn limit(&self, since: Instant, limit: Duration) -> Limit {
        let mut nearest = Limit { at: since + limit.min(FAR), why: LimitKind::Phase };
        if let Some(left) = self.left.map(|left| left.min(FAR))
            && since + left < nearest.at
        {
            nearest = Limit { at: since + left, why: LimitKind::Waiting };
        }
        self.deadline_before(nearest)
    }

    /// While the message goes, only the deadline counts beside the message's own limit, if that has one now.
    pub(crate) fn body_limit(&self, at: Option<Instant>) -> Limit {
        let at = at.unwrap_or_else(|| Instant::now() + FAR);
        self.deadline_before(Limit { at, why: LimitKind::Phase })
    }

    /// The deadline does not come before.
    #[cfg(feature = "retries")]
    pub(crate) fn has_time_for(&self, delay: Duration) -> bool {
        self.deadline.is_none_or(|deadline| deadline.saturating_duration_since(Instant::now()) > delay)
    }

    pub(crate) fn spend(&mut self, since: Instant) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(since.elapsed());
        }
    }

    /// This limit, or the deadline, if that comes first.
    pub(crate) fn deadline_before(&self, nearest: Limit) -> Limit {
        match self.deadline {
            Some(deadline) if deadline < nearest.at => Limit { at: deadline, why: LimitKind::Deadline },
            _ => nearest,
        }
    }
}
