//! Durations as the parameters of MAIL have them.

use std::time::Duration;

/// Nine digits are what the parameters have room for: 31 years.
pub(crate) const MAX_SECONDS: u64 = 999_999_999;

/// Whole seconds, and no fewer than were given; `None` for none at all, and for more than a parameter
/// can have.
pub(super) fn whole_seconds(duration: Duration) -> Option<u64> {
    let seconds = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0));
    (1..=MAX_SECONDS).contains(&seconds).then_some(seconds)
}
