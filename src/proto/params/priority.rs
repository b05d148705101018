//! MT-PRIORITY: which messages go first (RFC 6710).

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::text::quoted;

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

#[cfg(test)]
mod tests {
    use super::*;

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
