//! Durations as the parameters of MAIL have them.

use std::time::Duration;

use crate::error::{Error, Result};

/// Nine digits are what the parameters have room for: 31 years.
const MAX_SECONDS: u64 = 999_999_999;

/// Whole seconds, and no fewer than were given.
pub(super) fn whole_seconds(duration: Duration, what: &str) -> Result<u64> {
    let seconds = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0));
    if seconds == 0 || seconds > MAX_SECONDS {
        return Err(Error::request(format!("{duration:?} is no time to {what}"))
            .with_hint(format!("Give a time from 1 to {MAX_SECONDS} seconds.")));
    }
    Ok(seconds)
}
