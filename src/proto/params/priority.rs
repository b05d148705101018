//! MT-PRIORITY: the priority of a message (RFC 6710).

use std::fmt;
use std::str::FromStr;

use super::ParameterError;

/// The priority of a message: MT-PRIORITY (RFC 6710), from -9 to 9; the default of a message is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(i8);

impl Priority {
    /// Creates a priority.
    ///
    /// # Errors
    ///
    /// [`ParameterError::PriorityOutOfRange`] if it is less than -9 or more than 9.
    pub fn new(priority: i8) -> Result<Self, ParameterError> {
        if !(-9..=9).contains(&priority) {
            return Err(ParameterError::PriorityOutOfRange(priority));
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
    type Err = ParameterError;

    fn from_str(number: &str) -> Result<Self, ParameterError> {
        let not_a_number = |_| ParameterError::PriorityNotANumber(number.to_owned());
        Priority::new(number.parse().map_err(not_a_number)?)
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
