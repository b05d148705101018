//! BY: the time within which a message is to be delivered (RFC 2852).

use std::fmt;
use std::time::Duration;

use super::ParameterError;
use super::duration::whole_seconds;

/// The time within which a message is to be delivered, and what happens otherwise: BY (RFC 2852).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverBy {
    seconds: u64,
    returns: bool,
    traced: bool,
}

impl DeliverBy {
    /// Returns the message as undeliverable after this time, which counts from MAIL, in whole
    /// seconds.
    ///
    /// # Errors
    ///
    /// [`ParameterError::DeliverBy`] if the time is zero or more than 999,999,999 seconds.
    pub fn or_return(within: Duration) -> Result<Self, ParameterError> {
        let seconds = whole_seconds(within).ok_or(ParameterError::DeliverBy(within))?;
        Ok(DeliverBy {
            seconds,
            returns: true,
            traced: false,
        })
    }

    /// Notifies the sender after this time, which counts from MAIL, in whole seconds; delivery
    /// continues.
    ///
    /// # Errors
    ///
    /// See [`or_return`](Self::or_return).
    pub fn or_notify(within: Duration) -> Result<Self, ParameterError> {
        Ok(DeliverBy {
            returns: false,
            ..DeliverBy::or_return(within)?
        })
    }

    /// Also requests a report when the message is relayed to a server without this extension.
    #[must_use]
    pub fn traced(self) -> Self {
        DeliverBy {
            traced: true,
            ..self
        }
    }

    /// The time.
    pub fn within(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether the message is returned if it is late.
    pub fn returns(&self) -> bool {
        self.returns
    }
}

impl fmt::Display for DeliverBy {
    /// As a parameter of MAIL.
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
