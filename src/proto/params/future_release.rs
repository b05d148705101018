//! HOLDFOR and HOLDUNTIL: not before when a message is to be delivered (RFC 4865).

use std::fmt;
use std::time::{Duration, SystemTime};

use super::ParameterError;
use super::duration::whole_seconds;
use crate::date;

/// How long the server that a message is submitted to keeps it back: HOLDFOR or HOLDUNTIL (RFC
/// 4865).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureRelease(pub(super) HoldKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldKind {
    /// So many seconds from MAIL on.
    For(u64),
    /// So many seconds after 1970 began.
    Until(u64),
}

impl FutureRelease {
    /// For this time, counted from MAIL and in whole seconds.
    ///
    /// # Errors
    ///
    /// [`ParameterError::HoldFor`] for no time at all, or more than 999,999,999 seconds.
    pub fn for_duration(duration: Duration) -> Result<Self, ParameterError> {
        let seconds = whole_seconds(duration).ok_or(ParameterError::HoldFor(duration))?;
        Ok(FutureRelease(HoldKind::For(seconds)))
    }

    /// Until then, to the second. It is not compared with this machine's clock.
    ///
    /// # Errors
    ///
    /// [`ParameterError::HoldUntil`] for a time before 1970 or after 9999.
    pub fn until(time: SystemTime) -> Result<Self, ParameterError> {
        let seconds = date::seconds(time).ok_or(ParameterError::HoldUntil)?;
        Ok(FutureRelease(HoldKind::Until(seconds)))
    }
}

impl fmt::Display for FutureRelease {
    /// As it stands in MAIL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            HoldKind::For(seconds) => write!(f, "HOLDFOR={seconds}"),
            HoldKind::Until(seconds) => write!(f, "HOLDUNTIL={}", date::to_text(seconds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn future_release_is_whole_seconds_within_range() {
        let hold =
            FutureRelease::until(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(hold.unwrap().to_string(), "HOLDUNTIL=2023-11-14T22:13:20Z");
        let hold = FutureRelease::for_duration(Duration::from_secs(999_999_999)).unwrap();
        assert_eq!(hold.to_string(), "HOLDFOR=999999999");
        for wrong in [
            Duration::ZERO,
            Duration::from_secs(1_000_000_000),
            Duration::MAX,
        ] {
            assert!(FutureRelease::for_duration(wrong).is_err(), "{wrong:?}");
        }
        assert!(FutureRelease::until(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).is_err());
    }
}
