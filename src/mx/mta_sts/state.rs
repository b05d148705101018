//! [`PolicyState`]: what a sender knows of the policy of one domain.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Policy;

/// How long a failed fetch is not repeated while the id stays the same (RFC 8461, 3.3).
const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// A policy that is still valid is fetched again after this time, so that its lifetime does not
/// end while the server of policies fails (RFC 8461, 3.3), or after half of its lifetime.
const REFRESH_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How far in the future a policy may have been fetched: clocks are set back by small amounts. One
/// from later is not believed, since its lifetime would not end.
const CLOCK_STEP: Duration = Duration::from_secs(60 * 60);

/// A policy, and when it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPolicy {
    /// The id that the domain's record had then.
    pub id: String,
    /// The policy.
    pub policy: Policy,
    /// When it was fetched.
    pub fetched_at: SystemTime,
}

impl StoredPolicy {
    /// Creates the value.
    pub fn new(id: impl Into<String>, policy: Policy, fetched_at: SystemTime) -> Self {
        StoredPolicy {
            id: id.into(),
            policy,
            fetched_at,
        }
    }

    /// Whether the age of the policy does not exceed its lifetime (RFC 8461, 5.1): one of lifetime
    /// zero is valid when it is fetched. A policy from the future is not valid.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        match now.duration_since(self.fetched_at) {
            Ok(age) => age <= self.policy.max_age,
            Err(ahead) => ahead.duration() <= CLOCK_STEP,
        }
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let age = now.duration_since(self.fetched_at).unwrap_or_default();
        age >= REFRESH_AFTER.min(self.policy.max_age / 2)
    }
}

/// What a sender knows of the policy of one domain, and when it fetches a policy (RFC 8461, 3.3 and
/// 5.1). It performs no I/O and has no clock.
///
/// 1. Look up the TXT record. If it is found, ask [`must_fetch`](Self::must_fetch).
/// 2. If so, fetch the policy, and report it by [`fetched`](Self::fetched), or that there is none
///    by [`failed`](Self::failed).
/// 3. Apply [`policy`](Self::policy), in any case: a stored policy remains valid to the end of its
///    lifetime, whatever happens to the record and to the server of policies.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use envoi::mx::mta_sts::PolicyState;
///
/// let now = SystemTime::now();
/// let mut state = PolicyState::default();
/// assert!(state.must_fetch("1", now));
/// let policy = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 86400".parse()?;
/// state.fetched("1", policy, now);
/// assert!(!state.must_fetch("1", now));
///
/// // The policy changes, but the new one cannot be had.
/// assert!(state.must_fetch("2", now));
/// state.failed("2", now);
/// assert!(!state.must_fetch("2", now + Duration::from_secs(60)));
/// assert_eq!(state.policy(now).unwrap().id, "1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PolicyState {
    stored: Option<Arc<StoredPolicy>>,
    failed: Option<FailedFetch>,
}

#[derive(Clone, Debug)]
struct FailedFetch {
    id: String,
    at: SystemTime,
}

impl PolicyState {
    /// The policy that is valid now.
    pub fn policy(&self, now: SystemTime) -> Option<&Arc<StoredPolicy>> {
        self.stored.as_ref().filter(|stored| stored.is_valid(now))
    }

    /// When the lifetime of the policy ends. `None` without a policy.
    pub(super) fn ends_at(&self) -> Option<SystemTime> {
        let stored = self.stored.as_ref()?;
        stored.fetched_at.checked_add(stored.policy.max_age)
    }

    /// The size of the policy, about, in bytes.
    pub(super) fn size(&self) -> usize {
        let stored = self.stored.as_ref();
        stored.map_or(0, |stored| stored.policy.size())
    }

    /// Whether the policy with this id, which the record has now, is to be fetched: it is not
    /// stored, or was fetched a day ago or half of its lifetime. After a failure, a policy with the
    /// same id is fetched again after 5 minutes.
    pub fn must_fetch(&self, id: &str, now: SystemTime) -> bool {
        let is_current = |stored: &Arc<StoredPolicy>| stored.id == id && !stored.is_due(now);
        !self.has_failed(id, now) && !self.policy(now).is_some_and(is_current)
    }

    /// Whether the policy with this id could not be fetched a while ago, and is not to be fetched
    /// again yet.
    pub(super) fn has_failed(&self, id: &str, now: SystemTime) -> bool {
        self.failed.as_ref().is_some_and(|failed| {
            // Where the clock was set back, the time of the failure means nothing.
            let since = now.duration_since(failed.at);
            failed.id == id && since.is_ok_and(|since| since < RETRY_AFTER)
        })
    }

    /// Stores a policy that was fetched, for the id that the record had.
    pub fn fetched(&mut self, id: &str, policy: Policy, now: SystemTime) {
        self.restore(StoredPolicy::new(id, policy, now));
    }

    /// Stores a policy that was kept elsewhere.
    pub fn restore(&mut self, stored: StoredPolicy) {
        self.stored = Some(Arc::new(stored));
        self.failed = None;
    }

    /// Notes that the policy could not be fetched, or is not one.
    pub fn failed(&mut self, id: &str, now: SystemTime) {
        self.failed = Some(FailedFetch {
            id: id.to_owned(),
            at: now,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn policy(max_age: u64) -> Policy {
        let text = format!("version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: {max_age}");
        text.parse().unwrap()
    }

    fn state(max_age: u64) -> PolicyState {
        let mut state = PolicyState::default();
        state.fetched("1", policy(max_age), at(0));
        state
    }

    #[test]
    fn a_policy_is_valid_until_its_lifetime_ends() {
        let state = state(7 * DAY);
        assert!(state.policy(at(0)).is_some() && state.policy(at(7 * DAY)).is_some());
        assert!(state.policy(at(7 * DAY + 1)).is_none());
        let state = self::state(0);
        assert!(state.policy(at(0)).is_some() && state.policy(at(1)).is_none());
    }

    #[test]
    fn another_id_is_fetched_at_once() {
        let state = state(7 * DAY);
        assert!(!state.must_fetch("1", at(1)));
        assert!(state.must_fetch("2", at(1)) && state.must_fetch("0", at(1)));
    }

    #[test]
    fn a_policy_is_refreshed_before_its_lifetime_ends() {
        for (max_age, due) in [(30 * DAY, DAY), (DAY, DAY / 2), (0, 0)] {
            let state = state(max_age);
            assert!(due == 0 || !state.must_fetch("1", at(due - 1)), "{max_age}");
            assert!(state.must_fetch("1", at(due)), "{max_age}");
        }
    }

    #[test]
    fn a_failure_keeps_the_old_policy_and_is_not_repeated_for_a_while() {
        let mut state = state(7 * DAY);
        state.failed("2", at(100));
        assert_eq!(state.policy(at(100)).unwrap().id, "1");
        assert!(!state.must_fetch("2", at(100)) && !state.must_fetch("2", at(399)));
        assert!(state.must_fetch("2", at(400)) && state.must_fetch("3", at(101)));
        // The clock was set back.
        assert!(state.must_fetch("2", at(99)));
        state.fetched("2", policy(DAY), at(400));
        assert!(!state.must_fetch("2", at(401)));
        assert_eq!(state.policy(at(401)).unwrap().id, "2");
    }

    #[test]
    fn a_policy_from_the_future_is_not_believed() {
        let state = state(7 * DAY);
        let before = |seconds| at(0) - Duration::from_secs(seconds);
        assert!(state.policy(before(60)).is_some() && !state.must_fetch("1", before(60)));
        assert!(state.policy(before(3601)).is_none() && state.must_fetch("1", before(3601)));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Later(u64),
        /// The domain publishes a policy with this lifetime and the next id.
        Publish(u64),
        /// A message is sent; whether the server of policies works.
        Send(bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1..3 * DAY).prop_map(Event::Later),
            (1..400u64).prop_map(Event::Later),
            (0..5 * DAY).prop_map(Event::Publish),
            any::<bool>().prop_map(Event::Send),
            any::<bool>().prop_map(Event::Send),
        ]
    }

    proptest! {
        /// Whatever happens: a message sees the published policy where it can be had, else the last
        /// one that was fetched, to the end of its lifetime and no longer; a failing server is
        /// asked at most every five minutes for one id.
        #[test]
        fn the_best_policy_known_is_applied(events in prop::collection::vec(event(), 1..60)) {
            let mut state = PolicyState::default();
            let (mut now, mut id, mut max_age) = (0, 0u32, DAY);
            let mut last: Option<(u32, u64, u64)> = None;
            let mut failure: Option<(u32, u64)> = None;
            for event in events {
                match event {
                    Event::Later(seconds) => now += seconds,
                    Event::Publish(age) => (id, max_age) = (id + 1, age),
                    Event::Send(works) => {
                        let word = id.to_string();
                        if state.must_fetch(&word, at(now)) {
                            let again = failure
                                .is_some_and(|(failed, when)| failed == id && now < when + 300);
                            prop_assert!(!again);
                            if works {
                                state.fetched(&word, policy(max_age), at(now));
                                last = Some((id, now, max_age));
                            } else {
                                state.failed(&word, at(now));
                                failure = Some((id, now));
                            }
                        } else if failure
                            .is_none_or(|(failed, when)| failed != id || now >= when + 300)
                        {
                            prop_assert_eq!(last.map(|(stored, ..)| stored), Some(id));
                        }
                        let valid = last.filter(|(_, when, age)| now <= when + age);
                        let applied = state.policy(at(now)).map(|stored| stored.id.clone());
                        prop_assert_eq!(applied, valid.map(|(stored, ..)| stored.to_string()));
                    }
                }
            }
        }
    }
}
