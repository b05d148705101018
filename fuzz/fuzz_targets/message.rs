//! Any bytes as a message that is ready: what goes behind DATA is the text with its line ends made CRLF and without its Bcc, as
//! a simple reader takes it out; and what was said of it beforehand is true.
//!
//! The first byte says where the blocks that a stream is read in are cut: behind so many bytes of the message, if it is not 0.

#![cfg_attr(not(test), no_main)]

#[path = "../../tests/properties/decoder.rs"]
mod decoder;

use std::io::Cursor;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use envoi::proto::{Content, Output, Stuffer};
use envoi::{Address, Body, Envelope, Kind, LineEnds, Message, Result};

use decoder::{normalised, unstuffed};

/// A stream is read in blocks of this size.
const BLOCK: usize = 57 * 1024;

/// Nothing here waits: a message of one block needs no thread, and neither does a stream from memory.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a message in memory makes nobody wait"),
    }
}

fn prepared(message: Message<'static>, line_ends: LineEnds) -> Result<Body> {
    let envelope = Envelope::new(None, [Address::new("you@example.com").unwrap()]).unwrap();
    now(message.line_ends(line_ends).envelope(envelope).prepare()).map(|(_, body)| body)
}

/// What goes behind DATA, read by a server, without what was put in front.
fn sent(mut body: Body, padding: &[u8]) -> Result<Vec<u8>> {
    let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
    while let Some(chunk) = now(body.chunk()) {
        let chunk = chunk?;
        assert!(!chunk.bytes().is_empty());
        stuffer.push(chunk, &mut output);
    }
    stuffer.finish(&mut output);
    let mut wire = Vec::new();
    while !output.is_empty() {
        let front = output.front().len();
        wire.extend_from_slice(output.front());
        output.advance(front);
    }
    let wire = wire.strip_prefix(padding).expect("what was put in front goes as it is");
    Ok(unstuffed(wire).expect("no line end stands alone, and the message ends where it should"))
}

/// The lines without the Bcc and Resent-Bcc of their header section (RFC 5322, 2.2.3, 3.6.3 and 3.6.6).
fn without_bcc(text: &[u8]) -> Vec<u8> {
    let (mut kept, mut in_headers, mut hides) = (Vec::new(), true, false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        in_headers &= line != b"\r\n";
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        if in_headers && !is_folded {
            let name = line.split(|byte| matches!(byte, b':' | b' ' | b'\t')).next().unwrap_or_default();
            let is_whole = name.len() < line.len();
            hides = is_whole && (name.eq_ignore_ascii_case(b"bcc") || name.eq_ignore_ascii_case(b"resent-bcc"));
        }
        if !(in_headers && hides) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

fn has_bare_line_end(text: &[u8]) -> bool {
    let alone = |at: &usize| match text[*at] {
        b'\r' => text.get(at + 1) != Some(&b'\n'),
        b'\n' => *at == 0 || text[at - 1] != b'\r',
        _ => false,
    };
    (0..text.len()).any(|at| alone(&at))
}

pub fn check(data: &[u8]) {
    let Some((cut, text)) = data.split_first() else { return };
    if text.len() >= BLOCK {
        return;
    }
    let expected = without_bcc(&normalised(text));
    if expected.contains(&0) {
        // The machine refuses it in a stream.
        for line_ends in [LineEnds::Normalize, LineEnds::Refuse] {
            let refused = prepared(Message::ready(text.to_vec()), line_ends).expect_err("no text has a NUL");
            assert_eq!(refused.kind(), Kind::Request);
        }
        let binary = prepared(Message::ready(text.to_vec()), LineEnds::Keep).unwrap();
        assert_eq!(binary.content(), Content::Binary);
        return;
    }

    let body = prepared(Message::ready(text.to_vec()), LineEnds::Normalize).unwrap();
    assert_eq!(body.size(), Some(expected.len() as u64));
    assert_eq!(body.content() == Content::SevenBit, expected.is_ascii());
    let lines = expected.split(|byte| *byte == b'\n').map(|line| line.len().saturating_sub(1) as u64);
    assert_eq!(body.longest_line(), lines.max());
    let again = body.restart().expect("it is all in memory");
    assert_eq!(sent(body, b"").unwrap(), expected);
    assert_eq!(sent(again, b"").unwrap(), expected);

    // A header in front of it moves the end of the first block into the message.
    let padding = match *cut {
        0 => Vec::new(),
        at => [b"X-P: ".to_vec(), vec![b'x'; BLOCK - usize::from(at) - 7], b"\r\n".to_vec()].concat(),
    };
    let stream = || Message::ready_stream(Cursor::new([&padding[..], text].concat()));
    let body = prepared(stream(), LineEnds::Normalize).unwrap();
    assert_eq!((body.size(), body.content(), body.can_restart()), (None, Content::Unknown, false));
    assert_eq!(sent(body, &padding).unwrap(), expected, "cut at {cut}");

    // Who may change nothing refuses what is bare, and changes nothing otherwise.
    let of_bytes = prepared(Message::ready(text.to_vec()), LineEnds::Refuse);
    let of_stream = sent(prepared(stream(), LineEnds::Refuse).unwrap(), &padding);
    match of_bytes {
        Ok(body) => {
            assert_eq!(sent(body, b"").unwrap(), expected);
            assert_eq!(of_stream.unwrap(), expected, "cut at {cut}");
        }
        Err(error) => {
            assert!(has_bare_line_end(text));
            assert_eq!((error.kind(), of_stream.unwrap_err().kind()), (Kind::Request, Kind::Input));
        }
    }
    if !has_bare_line_end(text) {
        assert!(prepared(Message::ready(text.to_vec()), LineEnds::Refuse).is_ok());
    }
}

#[cfg(not(test))]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));
