//! Assertions that print what differs, and waiting for messages.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// The maximum number of pairs of lines that are compared for the shortest difference.
const COMPARED: usize = 1_000_000;
/// The number of equal lines that are printed around those that differ.
const CONTEXT: usize = 3;

/// Compares two texts line by line.
#[track_caller]
pub(super) fn assert_lines(what: &str, expected: &[&str], actual: &[&str]) {
    if expected != actual {
        let difference = difference(expected, actual);
        panic!("{what} (- expected, + received):\n{difference}");
    }
}

/// Compares lists of addresses in any order, without regard to case.
#[track_caller]
pub(super) fn assert_addresses<'a, 'b>(
    expected: impl IntoIterator<Item = &'a str>,
    actual: impl IntoIterator<Item = &'b str>,
) {
    let mut expected: Vec<_> = expected.into_iter().map(str::to_ascii_lowercase).collect();
    let mut actual: Vec<_> = actual.into_iter().map(str::to_ascii_lowercase).collect();
    expected.sort_unstable();
    actual.sort_unstable();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    let actual: Vec<_> = actual.iter().map(String::as_str).collect();
    assert_lines("the recipients differ", &expected, &actual);
}

/// Looks for a text in a message. A line end of the text is that of the message.
#[track_caller]
pub(super) fn assert_contains(message: &[u8], text: &str) {
    let message = String::from_utf8_lossy(message).replace("\r\n", "\n");
    assert!(
        message.contains(&text.replace("\r\n", "\n")),
        "the message does not contain {text:?}:\n{message}"
    );
}

/// Compares a whole message. A line end of the text is that of the message.
#[track_caller]
pub(super) fn assert_message(message: &[u8], expected: &str) {
    let message = String::from_utf8_lossy(message);
    let expected: Vec<_> = expected.lines().collect();
    assert_lines(
        "the message differs",
        &expected,
        &message.lines().collect::<Vec<_>>(),
    );
}

/// The lines of both texts: `-` before those only in `expected`, `+` before those only in `actual`.
fn difference(expected: &[&str], actual: &[&str]) -> String {
    let both = expected.iter().zip(actual);
    let start = both.take_while(|(a, b)| a == b).count();
    let (before, expected) = expected.split_at(start);
    let actual = &actual[start..];
    let both = expected.iter().rev().zip(actual.iter().rev());
    let end = both.take_while(|(a, b)| a == b).count();
    let (expected, after) = expected.split_at(expected.len() - end);
    let actual = &actual[..actual.len() - end];

    let mut lines: Vec<(char, &str)> = Vec::new();
    // `common[i][j]` is the length of the longest common subsequence from `i` and `j` on. Texts
    // that are too long for the table are printed one after the other.
    let width = actual.len() + 1;
    let mut common = Vec::new();
    if expected.len().saturating_mul(actual.len()) <= COMPARED {
        common = vec![0u32; (expected.len() + 1) * width];
        for i in (0..expected.len()).rev() {
            for j in (0..actual.len()).rev() {
                common[i * width + j] = if expected[i] == actual[j] {
                    common[(i + 1) * width + j + 1] + 1
                } else {
                    common[(i + 1) * width + j].max(common[i * width + j + 1])
                };
            }
        }
    }
    let length = |i: usize, j: usize| common.get(i * width + j).copied().unwrap_or_default();
    let (mut i, mut j) = (0, 0);
    while i < expected.len() || j < actual.len() {
        let is_same = i < expected.len() && j < actual.len() && expected[i] == actual[j];
        if is_same {
            lines.push((' ', expected[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == actual.len() || i < expected.len() && length(i + 1, j) >= length(i, j + 1) {
            lines.push(('-', expected[i]));
            i += 1;
        } else {
            lines.push(('+', actual[j]));
            j += 1;
        }
    }

    let mut text = String::new();
    let mut line = |mark: char, shown: &str| {
        // Otherwise a blank at the end of a line, or a control character, would not be seen.
        let shown = match shown.trim_end() == shown && !shown.contains(char::is_control) {
            true => shown.to_owned(),
            false => format!("{shown:?}"),
        };
        let _ = writeln!(text, "{}", format!("{mark} {shown}").trim_end());
    };
    let omitted = before.len().saturating_sub(CONTEXT);
    if omitted > 0 {
        line(' ', &format!("… {omitted} equal lines"));
    }
    for same in &before[omitted..] {
        line(' ', same);
    }
    for (mark, shown) in lines {
        line(mark, shown);
    }
    for same in after.iter().take(CONTEXT) {
        line(' ', same);
    }
    if after.len() > CONTEXT {
        line(' ', &format!("… {} equal lines", after.len() - CONTEXT));
    }
    text
}

/// The messages did not arrive in time; from [`Server::wait_for`](super::Server::wait_for) and
/// [`Recorder::wait_for`](super::Recorder::wait_for).
///
/// `Debug` prints the same text as `Display`, so that `unwrap` in a test does.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitError {
    /// The number of messages that were waited for.
    pub expected: usize,
    /// The number of messages that arrived.
    pub arrived: usize,
    /// How long was waited.
    pub waited: Duration,
    pub(super) details: String,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WaitError {
            expected,
            arrived,
            waited,
            details,
        } = self;
        write!(
            f,
            "{arrived} of {expected} messages arrived within {waited:?}{details}"
        )
    }
}

impl fmt::Debug for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for WaitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_the_lines_that_differ_and_a_few_around_them() {
        let expected = ["1", "2", "3", "4", "a", "b", "c", "d", "5", "6", "7", "8"];
        let actual = ["1", "2", "3", "4", "b", "x", "d ", "5", "6", "7", "8"];
        assert_eq!(
            difference(&expected, &actual),
            "  … 1 equal lines\n  2\n  3\n  4\n- a\n  b\n- c\n- d\n+ x\n+ \"d \"\n  5\n  6\n  7\n  \
             … 1 equal lines\n"
        );
        assert_eq!(difference(&[], &["a"]), "+ a\n");
        assert_eq!(difference(&["a"], &[]), "- a\n");
        assert_eq!(difference(&["a", "a"], &["a"]), "  a\n- a\n");
    }

    #[test]
    fn long_texts_are_shown_one_after_the_other() {
        let expected = vec!["a"; 2000];
        let actual = vec!["b"; 2000];
        let shown = difference(&expected, &actual);
        assert_eq!(shown, "- a\n".repeat(2000) + &"+ b\n".repeat(2000));
    }
}
