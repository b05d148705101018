//! What is stuffed is what arrives, by a decoder that knows nothing of the one that stuffs.

use bytes::Bytes;
use envoi::proto::{Output, Stuffer};
use proptest::collection::vec;
use proptest::prelude::*;

use support::session::{normalised, unstuffed};

/// Around what is copied, read and encoded at once.
const SIZES: [usize; 8] = [0, 1, 4096, 4097, 32_767, 32_768, 32_769, 100_000];

/// Stuffs the text in pieces of these lengths, over and over, and checks all that is to be checked.
fn check(text: &[u8], lengths: &[usize]) {
    let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
    let mut rest = text;
    for length in lengths.iter().cycle() {
        let (piece, behind) = rest.split_at((*length).min(rest.len()));
        stuffer.push(Bytes::copy_from_slice(piece).into(), &mut output);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    stuffer.finish(&mut output);

    let (mut wire, waiting) = (Vec::new(), output.len());
    while !output.is_empty() {
        let front = output.front().len();
        wire.extend_from_slice(output.front());
        output.advance(front);
    }
    assert_eq!(wire.len(), waiting);
    let message = unstuffed(&wire).expect("the message ends where it should, and all its lines do");
    assert!(
        message == normalised(text),
        "what arrives is not what was sent"
    );
    assert_eq!(stuffer.bytes(), message.len() as u64);
}

/// Bytes among which those that matter are frequent.
fn text(size: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => Just(b'.'),
        2 => Just(b'\r'),
        2 => Just(b'\n'),
        3 => Just(b'x'),
        1 => any::<u8>(),
    ];
    vec(byte, size)
}

proptest! {
    #[test]
    fn stuffed_text_is_decoded_unchanged(text in text(0..200), lengths in vec(0usize..20, 1..5)) {
        // A split that gets nowhere would go on for ever.
        let lengths = [lengths, vec![1]].concat();
        check(&text, &lengths);
        check(&text, &[1]);
        check(&text, &[text.len()]);
    }

    #[test]
    fn large_stuffed_text_is_decoded_unchanged(
        text in text(1..60),
        size in 4000usize..12_000,
        lengths in vec(1usize..9000, 1..5),
    ) {
        let large: Vec<u8> = text.into_iter().cycle().take(size).collect();
        check(&large, &lengths);
    }
}

#[test]
fn text_of_buffer_sizes_is_decoded_unchanged() {
    let line = b"A line that is sent as it is, but for its dots.\r\n";
    for size in SIZES {
        let lines: Vec<u8> = line.iter().copied().cycle().take(size).collect();
        let dots = vec![b'.'; size];
        let dot_lines: Vec<u8> = b".\r\n".iter().copied().cycle().take(size).collect();
        let line_feeds = vec![b'\n'; size];
        let one_line = vec![b'x'; size];
        let mut no_last_end = lines.clone();
        no_last_end.extend_from_slice(b"the end");
        for text in [lines, dots, dot_lines, line_feeds, one_line, no_last_end] {
            for length in [1, 3, 4096, 4097, 32_768, text.len().max(1)] {
                check(&text, &[length]);
            }
        }
    }
}

#[test]
fn the_decoder_refuses_bare_line_ends() {
    for (wire, fault) in [
        (&b"a\r\n"[..], "does not end"),
        (b"a\n.\r\n", "bare line end"),
        (b"a\r.\r\n.\r\n", "bare line end"),
        (b".\r\na\r\n.\r\n", "before its end"),
        (b"a\r\n.\r\n.\r\n", "before its end"),
    ] {
        assert!(
            unstuffed(wire).unwrap_err().contains(fault),
            "{:?}",
            String::from_utf8_lossy(wire)
        );
    }
    assert_eq!(unstuffed(b"..\r\n...a\r\n.\r\n").unwrap(), b".\r\n..a\r\n");
}
