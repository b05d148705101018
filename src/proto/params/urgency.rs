//! How soon a message is to be delivered: by when (RFC 2852), not before (RFC 4865), before which
//! others (RFC 6710).

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::date;
use crate::error::{Error, Result};
use crate::text::quoted;

/// Nine digits are what the parameters have room for: 31 years.
const MAX_SECONDS: u64 = 999_999_999;

/// By when a message is to be delivered, and what then if it is not: BY (RFC 2852).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverBy {
    seconds: u64,
    returns: bool,
    traced: bool,
}

impl DeliverBy {
    /// Within this time, counted from MAIL and in whole seconds, or it is returned as not
    /// deliverable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) for no time at all, or more than
    /// 999,999,999 seconds.
    pub fn or_return(within: Duration) -> Result<Self> {
        let seconds = seconds(within, "deliver a message within")?;
        Ok(DeliverBy {
            seconds,
            returns: true,
            traced: false,
        })
    }

    /// Within this time, counted from MAIL and in whole seconds, or the sender is told, and
    /// delivery goes on.
    ///
    /// # Errors
    ///
    /// As for [`or_return`](Self::or_return).
    pub fn or_notify(within: Duration) -> Result<Self> {
        Ok(DeliverBy {
            returns: false,
            ..DeliverBy::or_return(within)?
        })
    }

    /// Reports tell when it was passed on to a server without this extension, too.
    #[must_use]
    pub fn traced(self) -> Self {
        DeliverBy {
            traced: true,
            ..self
        }
    }

    /// How long it may take.
    pub fn within(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// It is returned if it is late.
    pub fn returns(&self) -> bool {
        self.returns
    }
}

impl fmt::Display for DeliverBy {
    /// As it stands in MAIL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.returns { "R" } else { "N" };
        write!(
            f,
            "{};{mode}{}",
            self.seconds,
            if self.traced { "T" } else { "" }
        )
    }
}

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
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) for no time at all, or more than
    /// 999,999,999 seconds.
    pub fn for_duration(duration: Duration) -> Result<Self> {
        Ok(FutureRelease(HoldKind::For(seconds(
            duration,
            "hold a message for",
        )?)))
    }

    /// Until then, to the second. It is not compared with this machine's clock.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) for a time before 1970 or after 9999.
    pub fn until(time: SystemTime) -> Result<Self> {
        let seconds = date::seconds(time).ok_or_else(|| {
            Error::request("a message cannot be held until a time before 1970 or after 9999")
        })?;
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

/// Which messages go first: MT-PRIORITY (RFC 6710), from -9 to 9; 0 is what a message has without
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(i8);

impl Priority {
    /// A priority.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) for less than -9 or more than 9.
    pub fn new(priority: i8) -> Result<Self> {
        if !(-9..=9).contains(&priority) {
            return Err(
                Error::request(format!("the priority {priority} does not exist")).with_hint(
                    "Priorities are whole numbers from -9 to 9, the highest goes first.",
                ),
            );
        }
        Ok(Priority(priority))
    }

    /// The number.
    pub fn get(self) -> i8 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Priority {
    type Err = Error;

    fn from_str(number: &str) -> Result<Self> {
        let no_number = |_| {
            Error::request(format!("{} is no priority", quoted(number)))
                .with_hint("Priorities are whole numbers from -9 to 9, the highest goes first.")
        };
        Priority::new(number.parse().map_err(no_number)?)
    }
}

/// Whole seconds, and no fewer than were given.
fn seconds(duration: Duration, what: &str) -> Result<u64> {
    let seconds = duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0));
    if seconds == 0 || seconds > MAX_SECONDS {
        return Err(Error::request(format!("{duration:?} is no time to {what}"))
            .with_hint(format!("Give a time from 1 to {MAX_SECONDS} seconds.")));
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_and_in_range() {
        let by = DeliverBy::or_return(Duration::from_millis(1500)).unwrap();
        assert_eq!(by.to_string(), "2;R");
        assert_eq!(
            DeliverBy::or_notify(Duration::from_secs(60))
                .unwrap()
                .traced()
                .to_string(),
            "60;NT"
        );
        let hold =
            FutureRelease::until(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
                .unwrap();
        assert_eq!(hold.to_string(), "HOLDUNTIL=2023-11-14T22:13:20Z");
        assert_eq!(
            FutureRelease::for_duration(Duration::from_secs(MAX_SECONDS))
                .unwrap()
                .to_string(),
            "HOLDFOR=999999999"
        );
        for wrong in [
            Duration::ZERO,
            Duration::from_secs(MAX_SECONDS + 1),
            Duration::MAX,
        ] {
            assert!(
                DeliverBy::or_return(wrong).is_err() && FutureRelease::for_duration(wrong).is_err(),
                "{wrong:?}"
            );
        }
        assert!(FutureRelease::until(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).is_err());
    }

    #[test]
    fn priorities_are_in_range() {
        for number in ["-9", "0", "9"] {
            assert_eq!(number.parse::<Priority>().unwrap().to_string(), number);
        }
        for number in ["", "-10", "10", "1000", "high", "1 "] {
            assert!(number.parse::<Priority>().is_err(), "{number:?}");
        }
    }
}
