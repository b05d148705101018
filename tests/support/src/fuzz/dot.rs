//! Any text in any pieces goes as a message that a strict decoder reads as the same text: behind
//! DATA, with its dots doubled, and behind BDAT, without.
//!
//! The first four bytes are the lengths of the pieces, over and over.

use bytes::Bytes;
use envoi::proto::{Output, Stuffer};

use crate::decoder::{normalised, unstuffed};

fn wire(mut stuffer: Stuffer, text: &[u8], lengths: &[usize]) -> (Vec<u8>, u64) {
    let mut output = Output::default();
    let (mut rest, mut lengths) = (text, lengths.iter().cycle());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
        stuffer.push(Bytes::copy_from_slice(piece).into(), &mut output);
        rest = behind;
    }
    stuffer.finish(&mut output);
    let (mut wire, waiting) = (Vec::new(), output.len());
    while !output.is_empty() {
        // In parts, as a socket takes them.
        let front = output.front();
        let part = front.len().min(7).max(front.len() / 2);
        wire.extend_from_slice(&front[..part]);
        output.advance(part);
    }
    assert_eq!(wire.len(), waiting);
    (wire, stuffer.bytes())
}

pub fn check(data: &[u8]) {
    let Some((split, text)) = data.split_at_checked(4) else {
        return;
    };
    // A split that gets nowhere would go on for ever.
    let lengths: Vec<usize> = split
        .iter()
        .map(|byte| usize::from(*byte))
        .chain([1])
        .collect();
    let expected = normalised(text);
    for lengths in [&lengths[..], &[1], &[usize::MAX]] {
        let (behind_data, bytes) = wire(Stuffer::new(), text, lengths);
        assert_eq!(unstuffed(&behind_data).as_ref(), Ok(&expected));
        assert_eq!(bytes, expected.len() as u64);
        let (behind_bdat, bytes) = wire(Stuffer::without_dots(), text, lengths);
        assert_eq!(behind_bdat, expected);
        assert_eq!(bytes, expected.len() as u64);
    }
}
