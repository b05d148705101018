//! Points in time as text, in the form of RFC 3339 in UTC: `2026-12-24T18:00:00Z`.

use std::time::{Duration, SystemTime};

/// The first second of a year with five digits.
const END: u64 = 253_402_300_800;

const DAY: u64 = 24 * 60 * 60;

/// Seconds since 1970, if the form can express them.
pub(crate) fn seconds(time: SystemTime) -> Option<u64> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    (seconds < END).then_some(seconds)
}

/// Formats seconds since 1970.
pub(crate) fn to_text(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / DAY);
    let of_day = seconds % DAY;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Formats a time; a year that the form cannot express, as `Debug` does.
#[cfg(feature = "client")]
pub(crate) fn rfc3339(time: SystemTime) -> String {
    seconds(time).map_or_else(|| format!("{time:?}"), to_text)
}

/// The time between two points in its largest unit: `3 days`, `5 hours`.
#[cfg(feature = "client")]
pub(crate) fn between(earlier: SystemTime, later: SystemTime) -> String {
    let seconds = later.duration_since(earlier).unwrap_or_default().as_secs();
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..94_608_000 => (seconds / 86_400, "day"),
        _ => (seconds / 31_557_600, "year"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural}")
}

/// Parses a time in UTC after 1970.
pub(crate) fn from_text(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| {
        let digits = text
            .get(from..to)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<u64>().ok()
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1970..).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let time = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    // Reject impossible dates: formatting the result must give the input back.
    (to_text(time).eq_ignore_ascii_case(text))
        .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(time))
}

/// Converts days since 1970 to year, month and day. Years are counted from 1 March of the year 0,
/// so that a leap day is the last of its year; 400 years have 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (
        era * 400 + year + u64::from(month <= 2),
        month,
        of_year - (153 * shifted + 2) / 5 + 1,
    )
}

/// Converts year, month and day to days since 1970.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("9999-12-31T23:59:59Z", END - 1),
        ] {
            assert_eq!(to_text(seconds), text);
            assert_eq!(from_text(text).and_then(super::seconds), Some(seconds));
        }
        for wrong in [
            "",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "2023-01-01 00:00:00Z",
            "2023-01-01T00:00:00",
            "2023-01-01T00:00:00+01:00",
            "+023-01-01T00:00:00Z",
            "2023-01-00T00:00:00Z",
        ] {
            assert_eq!(from_text(wrong), None, "{wrong}");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_time_between_is_written_in_one_unit() {
        let moment = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (119, "1 minute"),
            (2 * DAY - 1, "1 day"),
            (400 * DAY, "400 days"),
            (1096 * DAY, "3 years"),
        ] {
            assert_eq!(between(moment(7), moment(7 + seconds)), text);
        }
        assert_eq!(between(moment(7), moment(0)), "0 seconds");
    }

    proptest! {
        #[test]
        fn written_dates_can_be_read(seconds in 0..END) {
            prop_assert_eq!(from_text(&to_text(seconds)).and_then(super::seconds), Some(seconds));
        }
    }
}
