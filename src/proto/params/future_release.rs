//! HOLDFOR and HOLDUNTIL: the earliest time of delivery (RFC 4865).

use std::fmt;
use std::time::{Duration, SystemTime};

use super::ParameterError;
use super::duration::whole_seconds;
use crate::date;

/// How long the submission server holds a message: HOLDFOR or HOLDUNTIL (RFC 4865).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureRelease(pub(super) HoldKind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldKind {
    /// Seconds from MAIL.
    For(u64),
    /// Seconds since 1970.
    Until(u64),
}

impl FutureRelease {
    /// Holds the message for this time, which counts from MAIL, in whole seconds.
    ///
    /// # Errors
    ///
    /// [`ParameterError::HoldFor`] if the time is zero or more than 999,999,999 seconds.
    pub fn for_duration(duration: Duration) -> Result<Self, ParameterError> {
        let seconds = whole_seconds(duration).ok_or(ParameterError::HoldFor(duration))?;
        Ok(FutureRelease(HoldKind::For(seconds)))
    }

    /// Holds the message until this time, to the second. It is not compared with the local clock.
    ///
    /// # Errors
    ///
    /// [`ParameterError::HoldUntil`] if the time is before 1970 or after 9999.
    pub fn until(time: SystemTime) -> Result<Self, ParameterError> {
        let seconds = date::seconds(time).ok_or(ParameterError::HoldUntil)?;
        Ok(FutureRelease(HoldKind::Until(seconds)))
    }
}

impl fmt::Display for FutureRelease {
    /// As a parameter of MAIL.
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
