//! BY: by when a message is to be delivered (RFC 2852).

use std::fmt;
use std::time::Duration;

use super::ParameterError;
use super::duration::whole_seconds;

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
    /// [`ParameterError::DeliverBy`] for no time at all, or more than 999,999,999 seconds.
    pub fn or_return(within: Duration) -> Result<Self, ParameterError> {
        let seconds = whole_seconds(within).ok_or(ParameterError::DeliverBy(within))?;
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
    pub fn or_notify(within: Duration) -> Result<Self, ParameterError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deliver_by_is_whole_seconds_within_range() {
        let by = DeliverBy::or_return(Duration::from_millis(1500)).unwrap();
        assert_eq!(by.to_string(), "2;R");
        let by = DeliverBy::or_notify(Duration::from_secs(60)).unwrap();
        assert_eq!(by.traced().to_string(), "60;NT");
        for wrong in [
            Duration::ZERO,
            Duration::from_secs(1_000_000_000),
            Duration::MAX,
        ] {
            assert!(DeliverBy::or_return(wrong).is_err(), "{wrong:?}");
        }
    }
}
