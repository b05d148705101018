//! Durations in the parameters of MAIL.

use std::time::Duration;

/// The parameters have nine digits, which is 31 years.
pub(crate) const MAX_SECONDS: u64 = 999_999_999;

/// Whole seconds, rounded up; `None` if there are none, or more than a parameter can express.
pub(super) fn whole_seconds(duration: Duration) -> Option<u64> {
    let seconds = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0));
    (1..=MAX_SECONDS).contains(&seconds).then_some(seconds)
}
