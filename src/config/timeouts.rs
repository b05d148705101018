//! How long the server may take, by phase and in all.

use std::time::Duration;

use tokio::time::Instant;

use crate::diagnose;
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
            _ => self.command,
        }
    }
}

/// The limits that span several phases, and how much of them is used up.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    deadline: Option<(Instant, Duration)>,
    /// By [`Timeouts::total_wait`], for all recipients.
    allowed: Option<Duration>,
    waited: Duration,
    waited_for_login: Duration,
}

/// When a wait must end, and which limit says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) at: Instant,
    pub(crate) why: LimitKind,
}

/// With all the time that it gives, of which only a part may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    Phase(Duration),
    Login(Duration),
    Waiting(Duration),
    Deadline(Duration),
}

impl LimitKind {
    /// What to do about a wait in this phase that this limit has ended; `secure` if inside TLS.
    pub(crate) fn hint(self, phase: Phase, secure: bool) -> String {
        let setting = match self {
            LimitKind::Phase(_) => "timeout= in the URL",
            LimitKind::Login(_) => {
                "Timeouts::login, which timeout= in the URL sets to four times its own value"
            }
            LimitKind::Waiting(_) => {
                "Timeouts::total_wait, which timeout= in the URL sets to four times its own value"
            }
            LimitKind::Deadline(_) => "a longer deadline",
        };
        diagnose::for_silence(phase, secure, setting, matches!(self, LimitKind::Phase(_)))
    }
}

/// Further away than anybody waits, and within what the timer can count.
pub(crate) const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

impl Clock {
    /// Begins to count now.
    pub(crate) fn start(timeouts: &Timeouts) -> Self {
        Clock {
            deadline: timeouts
                .deadline
                .map(|length| (Instant::now() + length.min(FAR), length)),
            allowed: timeouts.total_wait,
            waited: Duration::ZERO,
            waited_for_login: Duration::ZERO,
        }
    }

    /// So many recipients are to be asked about, too.
    pub(crate) fn allow_for(&mut self, recipients: usize, timeouts: &Timeouts) {
        let for_each = timeouts
            .total_wait_per_recipient
            .saturating_mul(u32::try_from(recipients).unwrap_or(u32::MAX));
        self.allowed = self.allowed.map(|allowed| allowed.saturating_add(for_each));
    }

    /// When a wait in this phase that began at `since` ends: by the phase's own limit, unless
    /// another one comes first.
    pub(crate) fn limit(&self, phase: Phase, since: Instant, timeouts: &Timeouts) -> Limit {
        let of_phase = timeouts.limit(phase);
        let mut nearest = Limit {
            at: since + of_phase.min(FAR),
            why: LimitKind::Phase(of_phase),
        };
        let login = (phase == Phase::Auth).then_some(timeouts.login);
        for (all, used, why) in [
            (login, self.waited_for_login, LimitKind::Login as fn(_) -> _),
            (self.allowed, self.waited, LimitKind::Waiting),
        ] {
            if let Some(all) = all {
                let at = Instant::now() + all.saturating_sub(used).min(FAR);
                if at < nearest.at {
                    nearest = Limit { at, why: why(all) };
                }
            }
        }
        self.deadline_before(nearest)
    }

    /// While the message goes, only the deadline counts beside the message's own limit, if that has
    /// one now.
    pub(crate) fn body_limit(&self, at: Option<Instant>, timeouts: &Timeouts) -> Limit {
        let at = at.unwrap_or_else(|| Instant::now() + FAR);
        self.deadline_before(Limit {
            at,
            why: LimitKind::Phase(timeouts.body),
        })
    }

    /// The deadline, and the time that was allowed until then.
    pub(crate) fn deadline(&self) -> Option<(Instant, Duration)> {
        self.deadline
    }

    /// The deadline does not come before.
    #[cfg(any(feature = "pool", feature = "retries"))]
    pub(crate) fn has_time_for(&self, delay: Duration) -> bool {
        self.deadline
            .is_none_or(|(at, _)| at.saturating_duration_since(Instant::now()) > delay)
    }

    /// A wait in this phase has ended, which began at `since`.
    pub(crate) fn spend(&mut self, phase: Phase, since: Instant) {
        let waited = since.elapsed();
        self.waited += waited;
        if phase == Phase::Auth {
            self.waited_for_login += waited;
        }
    }

    /// This limit, or the deadline, if that comes first.
    pub(crate) fn deadline_before(&self, nearest: Limit) -> Limit {
        match self.deadline {
            Some((at, length)) if at < nearest.at => Limit {
                at,
                why: LimitKind::Deadline(length),
            },
            _ => nearest,
        }
    }
}
