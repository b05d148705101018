//! The clock of a call: the limits that span several phases, and when a wait must end.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::timeouts::Timeouts;
use crate::diagnose;
use crate::error::Phase;

/// The limits that span several phases, and how much of them is used up.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    deadline: Option<(Instant, Duration)>,
    /// By [`Timeouts::total_wait`], for all recipients.
    allowed: Option<Duration>,
    waited: Duration,
    waited_for_login: Duration,
}

/// When a wait must end, and the limit that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) at: Instant,
    pub(crate) why: LimitKind,
}

/// The kind of a limit, with its whole duration, part of which may be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    Phase(Duration),
    Login(Duration),
    Waiting(Duration),
    Deadline(Duration),
}

impl LimitKind {
    /// What to do about a wait in this phase that this limit has ended; `secure` if inside TLS.
    pub(crate) fn hint(self, phase: Phase, secure: bool, has_port: bool) -> String {
        let setting = match self {
            LimitKind::Phase(_) => "timeout= in the URL",
            LimitKind::Login(_) => {
                "Timeouts::login, which timeout= in the URL sets to four times its own value"
            }
            LimitKind::Waiting(_) => {
                "Timeouts::total_wait, which timeout= in the URL sets to four times its own value"
            }
            LimitKind::Deadline(_) => "the deadline",
        };
        let is_of_phase = matches!(self, LimitKind::Phase(_));
        diagnose::hint_for_timeout(phase, secure, has_port, setting, is_of_phase)
    }
}

/// Longer than any real wait, and within the range of the timer.
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

    /// The deadline of the whole call holds, too.
    #[cfg(any(feature = "failover", feature = "mx"))]
    pub(crate) fn within(mut self, whole: &Clock) -> Self {
        let deadlines = [self.deadline, whole.deadline];
        self.deadline = deadlines.into_iter().flatten().min();
        self
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

    /// A wait in this phase has ended after this time.
    pub(crate) fn spend(&mut self, phase: Phase, waited: Duration) {
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
