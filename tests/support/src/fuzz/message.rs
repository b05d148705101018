//! Any bytes as a message that is ready: it is refused, or what goes is a header section that every
//! reader takes for one, without Bcc and in UTF-8, and the rest of the text with its line ends made
//! CRLF; and what was said of it beforehand is true.
//!
//! The first byte says where a stream is split: behind so many bytes of the message.

use std::io::Cursor;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use envoi::proto::{Content, Output, Stuffer};
use envoi::{Address, Envelope, ErrorKind, LineEnds, Message, PreparedMessage, Result};

use crate::decoder::{normalised, unstuffed};
use tokio::io::AsyncReadExt as _;

/// A message in memory that is larger is looked at by a thread.
const BLOCK: usize = 57 * 1024;

/// Nothing here waits: a message of one block needs no thread, and neither does a stream from
/// memory.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a message in memory is always ready"),
    }
}

fn prepared(message: Message<'static>, line_ends: LineEnds) -> Result<PreparedMessage> {
    let envelope = Envelope::new(None, [Address::new("you@example.com").unwrap()]).unwrap();
    now(message.line_ends(line_ends).envelope(envelope).prepare())
}

/// What goes after DATA, read by a server: the bytes of the message.
fn sent(message: PreparedMessage) -> Result<Vec<u8>> {
    let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
    let (mut body, mut bytes) = (message.into_body(), Vec::new());
    while let Some(chunk) = now(body.chunk()) {
        let chunk = chunk?;
        assert!(!chunk.bytes().is_empty());
        bytes.extend_from_slice(chunk.bytes());
        stuffer.push(chunk, &mut output);
    }
    stuffer.finish(&mut output);
    let mut wire = Vec::new();
    while !output.is_empty() {
        let front = output.front().len();
        wire.extend_from_slice(output.front());
        output.advance(front);
    }
    let received = unstuffed(&wire);
    let received =
        received.expect("no line end stands alone, and the message ends where it should");
    assert_eq!(received, bytes);
    Ok(received)
}

/// Checks the header section of a message that goes, and that nothing in it is new. Gives what
/// follows it.
fn check_section<'a>(message: &'a [u8], text: &[u8]) -> &'a [u8] {
    let mut given = text
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line));
    let (mut rest, mut fields) = (message, 0);
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("lines end")
            + 1;
        let (line, next) = rest.split_at(end);
        rest = next;
        let line = std::str::from_utf8(line.strip_suffix(b"\r\n").expect("by CRLF"))
            .expect("headers are UTF-8");
        if line.is_empty() {
            break;
        }
        assert!(
            given.any(|given| given.strip_suffix(b"\r\n").unwrap_or(given) == line.as_bytes()),
            "{line:?} is new"
        );
        assert!(!line.contains(['\r', '\n', '\0']));
        if line.starts_with([' ', '\t']) {
            assert!(fields > 0, "nothing is folded");
            continue;
        }
        let name = line
            .split(':')
            .next()
            .filter(|name| name.len() < line.len())
            .expect("a colon")
            .trim_ascii_end();
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()),
            "{line:?}"
        );
        assert!(!name.eq_ignore_ascii_case("bcc") && !name.eq_ignore_ascii_case("resent-bcc"));
        fields += 1;
    }
    assert!(fields > 0);
    rest
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
    let Some((split, text)) = data.split_first() else {
        return;
    };
    if text.len() >= BLOCK {
        return;
    }
    let (head, tail) = text.split_at(usize::from(*split).min(text.len()));
    let bytes = || Message::raw(text.to_vec());
    let stream =
        || Message::raw_stream(Cursor::new(head.to_vec()).chain(Cursor::new(tail.to_vec())));

    let body = prepared(bytes(), LineEnds::Normalize);
    let of_stream = prepared(stream(), LineEnds::Normalize);
    let (body, of_stream) = match (body, of_stream) {
        (Ok(body), Ok(of_stream)) => (body, of_stream),
        (Err(error), Err(of_stream)) => {
            // It would go by no other rule, but that a body with a NUL may be kept.
            assert_eq!(
                (error.kind(), error.message()),
                (ErrorKind::Request, of_stream.message())
            );
            assert!(prepared(bytes(), LineEnds::Refuse).is_err());
            assert!(prepared(bytes(), LineEnds::Keep).is_err());
            return;
        }
        (body, of_stream) => {
            // A NUL in the body, which the machine refuses in a stream.
            assert!(
                body.unwrap_err().message().contains("NUL")
                    && of_stream.is_ok()
                    && text.contains(&0)
            );
            if let Ok(kept) = prepared(bytes(), LineEnds::Keep) {
                assert_eq!(kept.content(), Content::Binary);
            }
            return;
        }
    };
    let (size, content, longest) = (body.size(), body.content(), body.longest_line());
    let again = body.try_clone().expect("it is all in memory");
    let headers = body.headers();
    let message = sent(body).unwrap();
    let after_headers = message.strip_prefix(&headers[..]).unwrap();
    assert!(after_headers.is_empty() || after_headers.starts_with(b"\r\n"));
    let added = again.try_clone().unwrap().prepend_header("X-Added", "yes");
    let added = sent(added.expect("any message may have it")).unwrap();
    assert_eq!(added, [b"X-Added: yes\r\n", &message[..]].concat());
    let rest = check_section(&message, &normalised(text));
    assert!(normalised(text).ends_with(rest));
    assert_eq!(size, Some(message.len() as u64));
    assert_eq!(content == Content::SevenBit, message.is_ascii());
    let lines = message
        .split(|byte| *byte == b'\n')
        .map(|line| line.len().saturating_sub(1) as u64);
    assert_eq!(longest, lines.max());
    assert_eq!(sent(again).unwrap(), message);
    assert_eq!(
        (of_stream.size(), of_stream.content(), of_stream.can_clone()),
        (None, Content::Unknown, false)
    );
    assert_eq!(sent(of_stream).unwrap(), message, "split at {split}");

    // Who may change nothing refuses what is bare, and changes nothing otherwise.
    match prepared(bytes(), LineEnds::Refuse) {
        Ok(body) => {
            assert_eq!(sent(body).unwrap(), message);
            assert_eq!(
                prepared(stream(), LineEnds::Refuse).and_then(sent).unwrap(),
                message,
                "split at {split}"
            );
        }
        Err(error) => {
            assert!(has_bare_line_end(text) && error.kind() == ErrorKind::Request);
            let of_stream = prepared(stream(), LineEnds::Refuse)
                .and_then(sent)
                .unwrap_err();
            assert_eq!(of_stream.message(), error.message());
        }
    }
    if !has_bare_line_end(text) {
        assert!(prepared(bytes(), LineEnds::Refuse).is_ok());
    }
}
