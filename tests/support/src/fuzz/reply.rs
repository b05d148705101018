//! Any bytes in any cut are the same replies, and the same fault, as at once; and no reply is
//! larger than allowed.
//!
//! The first byte says how the others are cut and which limits hold; what it stands for does not
//! matter.

use bytes::BytesMut;
use envoi::proto::{Limits, Reply, ReplyError, ReplyParser};

fn limits(choice: u8) -> Limits {
    let mut limits = Limits::default();
    if choice & 1 == 1 {
        (limits.line, limits.reply_lines, limits.reply_bytes) = (60, 5, 200);
    }
    limits
}

/// The replies up to a fault, if there is one, and how much of the bytes is left.
fn parse(bytes: &[u8], piece: usize, limits: &Limits) -> (Vec<Reply>, Result<usize, ReplyError>) {
    let mut parser = ReplyParser::new(limits.clone());
    let (mut input, mut replies) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece.max(1)) {
        input.extend_from_slice(piece);
        loop {
            match parser.parse(&mut input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(bad) => return (replies, Err(bad)),
            }
        }
        assert!(
            input.len() <= limits.line,
            "an incomplete line past the limit"
        );
    }
    (replies, Ok(input.len()))
}

fn check_reply(reply: &Reply, limits: &Limits) {
    assert!((200..600).contains(&reply.code()));
    let lines = reply.lines();
    assert!((1..=limits.reply_lines).contains(&lines.len()));
    // What is not UTF-8 is replaced by something three times as long.
    assert!(lines.iter().map(String::len).sum::<usize>() <= 3 * limits.reply_bytes);
    for line in lines {
        assert!(line.len() <= 3 * limits.line);
        assert!(
            !line.contains(|c: char| c.is_control() && c != '\t'),
            "{line:?}"
        );
    }
    if let Some(enhanced) = reply.enhanced() {
        assert_eq!(u16::from(enhanced.class), reply.code() / 100);
    }
    let classes = [
        reply.is_positive(),
        reply.is_intermediate(),
        reply.is_transient(),
        reply.is_permanent(),
    ];
    assert_eq!(classes.iter().filter(|class| **class).count(), 1);
    assert!(reply.to_string().starts_with(&reply.code().to_string()));
    assert!(reply.text().lines().count() <= lines.len());
}

pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let limits = limits(*choice);
    let whole = parse(bytes, usize::MAX, &limits);
    whole.0.iter().for_each(|reply| check_reply(reply, &limits));
    for piece in [1, 2 + usize::from(choice >> 1)] {
        assert_eq!(parse(bytes, piece, &limits), whole, "in pieces of {piece}");
    }
}
