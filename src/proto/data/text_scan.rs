//! What decides how a piece of text is encoded, found in one pass over its bytes.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// A dot at the beginning of a line, with the end of the line before it.
static DOT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n."));

/// The facts about a piece of text. They say nothing of the pieces around it: what its first byte
/// means depends on the byte before, and what a CR at its end means, on the byte after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TextScan {
    pub(super) is_ascii: bool,
    pub(super) has_nul: bool,
    /// A CR before another byte than LF, or an LF after another byte than CR.
    pub(super) has_bare_line_end: bool,
    /// The positions of the dots after an LF, in ascending order.
    pub(super) dots: Vec<usize>,
}

impl TextScan {
    pub(super) fn new(text: &[u8]) -> Self {
        let last = text.last().copied().unwrap_or(1);
        let (mut all, mut lowest, mut has_bare_line_end) = (last, last, false);
        // Without branches, so that the compiler uses vector instructions.
        for (byte, next) in text.iter().zip(text.iter().skip(1)) {
            all |= byte;
            lowest = lowest.min(*byte);
            has_bare_line_end |= (*byte == b'\r') != (*next == b'\n');
        }
        TextScan {
            is_ascii: all.is_ascii(),
            has_nul: lowest == 0,
            has_bare_line_end,
            dots: DOT.find_iter(text).map(|line_feed| line_feed + 1).collect(),
        }
    }

    /// The facts about lines of base64, which are not read.
    #[cfg(feature = "client")]
    pub(super) fn of_base64_lines() -> Self {
        TextScan {
            is_ascii: true,
            has_nul: false,
            has_bare_line_end: false,
            dots: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Determines the same facts byte by byte.
    fn reference(text: &[u8]) -> TextScan {
        let pairs = || text.windows(2).map(|pair| (pair[0], pair[1]));
        TextScan {
            is_ascii: text.iter().all(|byte| *byte < 128),
            has_nul: text.contains(&0),
            has_bare_line_end: pairs().any(|(byte, next)| {
                byte == b'\r' && next != b'\n' || byte != b'\r' && next == b'\n'
            }),
            dots: (1..text.len())
                .filter(|at| text[*at] == b'.' && text[at - 1] == b'\n')
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn facts_are_those_of_the_bytes_one_by_one(
            text in vec(
                prop_oneof![
                    4 => Just(&b"\r\n"[..]),
                    4 => Just(&b"."[..]),
                    8 => Just(&b"some words"[..]),
                    1 => prop::sample::select(vec![&b"\r"[..], b"\n", b"\0", b"\xff"]),
                ],
                0..80,
            ),
        ) {
            let text = text.concat();
            prop_assert_eq!(TextScan::new(&text), reference(&text));
        }
    }
}
