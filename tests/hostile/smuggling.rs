//! SMTP smuggling (SEC Consult, 2023; CVE-2023-51764 Postfix, 51765 Sendmail, 51766 Exim): what one
//! server passes on as a part of a message, the next takes for its end and for commands. No bare CR
//! or LF reaches the wire, and no line is a dot alone but the last, whatever the message is made of
//! and however it is cut (RFC 5321, 2.3.8 and 4.1.1.4).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use envoi::mail_builder::MessageBuilder;
use envoi::mail_builder::mime::MimePart;
use envoi::proto::Content;
use envoi::{Attachment, Connection, ErrorKind, LineEnds, Message, Result};
use tokio::io::{AsyncRead, ReadBuf};

use crate::script::{Act, meet, plain, send_reply, up_to};
use crate::server::{address, envelope};

/// Ends of a message to one server or another, each with a second message behind it.
const ENDS: [(&str, &str); 11] = [
    ("as it should be", "\r\n.\r\n"),
    ("LF alone, twice (Postfix, Sendmail)", "\n.\n"),
    ("CR alone, twice (Cisco Secure Email)", "\r.\r"),
    ("LF, then CRLF (Exim)", "\n.\r\n"),
    ("CRLF, then LF", "\r\n.\n"),
    ("CRLF, then CR", "\r\n.\r"),
    ("CR, then CRLF", "\r.\r\n"),
    ("a CR too many before", "\r\r\n.\r\n"),
    ("a CR too many behind", "\r\n.\r\r\n"),
    ("LF and CR the wrong way round", "\n\r.\n\r"),
    ("dots in a row", "\r\n.\r\n.\r\n..\r\n.\n.\r.\r\n"),
];

/// Ends of a message to a server that drops NULs, or reads no further than to one.
const NULS: [(&str, &str); 4] = [
    ("a NUL before the dot", "\r\n\0.\r\n"),
    ("a NUL behind the dot", "\r\n.\0\r\n"),
    ("a NUL within the line end before", "\r\0\n.\r\n"),
    ("a NUL within the line end behind", "\r\n.\r\0\n"),
];

const SECOND: &str = "MAIL FROM:<admin@example.org>\r\nRCPT \
    TO:<victim@example.com>\r\nDATA\r\nSubject: hi\r\n\r\nforged\r\n.\r\n";

fn text(end: &str) -> String {
    format!("Hello.{end}{SECOND}rest{end}")
}

/// Gives its bytes in pieces: to a cut, and behind it; or one by one.
struct Pieces {
    bytes: Vec<u8>,
    gone: usize,
    /// `None`: after each byte.
    cut: Option<usize>,
}

impl Pieces {
    fn new(text: &str, cut: Option<usize>) -> Self {
        Pieces {
            bytes: text.into(),
            gone: 0,
            cut,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (gone, left) = (self.gone, self.bytes.len() - self.gone);
        let length = match self.cut {
            None => left.min(1),
            Some(cut) if gone < cut => cut - gone,
            Some(_) => left,
        };
        let length = length.min(buffer.remaining());
        buffer.put_slice(&self.bytes[gone..gone + length]);
        self.gone += length;
        Poll::Ready(Ok(()))
    }
}

/// What a message is on the wire, from the go-ahead or BDAT on.
async fn wire(
    context: &str,
    chunking: bool,
    give: impl AsyncFnOnce(&mut Connection) -> Result<()>,
) -> Vec<u8> {
    let mut acts = up_to(if chunking { "RCPT" } else { "DATA" });
    if chunking {
        acts[2] = send_reply("250-hostile.example.org\r\n250-8BITMIME\r\n250 CHUNKING\r\n");
        acts.extend([
            send_reply("250 ok\r\n"),
            Act::Hear("LAST\r\n"),
            Act::Rest(1),
            send_reply("250 stored\r\n"),
            Act::Listen,
        ]);
    } else {
        acts[2] = send_reply("250-hostile.example.org\r\n250 8BITMIME\r\n");
        // It waits until the client has nothing more to say.
        acts.extend([
            send_reply("354 go\r\n"),
            Act::Hear("\r\n.\r\n"),
            Act::Rest(1),
            send_reply("250 stored\r\n"),
            Act::Listen,
        ]);
    }
    let endpoint = plain();
    let meeting = meet(acts, async |stream| {
        let mut connection = Connection::from_stream(stream, &endpoint).await?;
        give(&mut connection).await
    })
    .await;
    meeting
        .result
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    let start = if chunking {
        &b"BDAT "[..]
    } else {
        &b"DATA\r\n"[..]
    };
    let from = meeting
        .heard
        .windows(start.len())
        .position(|part| part == start)
        .unwrap()
        + start.len();
    meeting.heard[from..].to_vec()
}

#[track_caller]
fn assert_clean(context: &str, wire: &[u8]) {
    let shown = String::from_utf8_lossy(wire);
    for (at, byte) in wire.iter().enumerate() {
        let is_bare = match byte {
            b'\r' => wire.get(at + 1) != Some(&b'\n'),
            b'\n' => at == 0 || wire[at - 1] != b'\r',
            _ => false,
        };
        assert!(!is_bare, "{context}: a bare {byte:?} at {at}: {shown:?}");
    }
}

/// Behind DATA: what is there is one message and its end, to every server.
#[track_caller]
fn assert_one_message(context: &str, wire: &[u8]) {
    assert_clean(context, wire);
    let shown = String::from_utf8_lossy(wire);
    let message = wire
        .strip_suffix(b"\r\n.\r\n")
        .unwrap_or_else(|| panic!("{context}: no end: {shown:?}"));
    for end in ["\n.\n", "\r.\r", "\n.\r"] {
        let found = [message, b"\r\n"]
            .concat()
            .windows(end.len())
            .any(|part| part == end.as_bytes());
        assert!(
            !found && !message.starts_with(b".\r\n"),
            "{context}: {end:?} is in {shown:?}"
        );
    }
}

/// Behind BDAT: so many bytes as were announced.
#[track_caller]
fn assert_one_chunk(context: &str, wire: &[u8]) {
    let shown = String::from_utf8_lossy(wire);
    let end = wire
        .windows(7)
        .position(|part| part == b" LAST\r\n")
        .unwrap();
    let size: usize = std::str::from_utf8(&wire[..end]).unwrap().parse().unwrap();
    assert_eq!(wire.len() - end - 7, size, "{context}: {shown:?}");
    assert_clean(context, &wire[end + 7..]);
}

async fn check(context: &str, message: impl Fn() -> Message<'static>) {
    let is_sized = message()
        .prepare()
        .await
        .is_ok_and(|prepared| prepared.size().is_some());
    for chunking in [false, true] {
        if chunking && !is_sized {
            // It goes behind DATA all the same.
            continue;
        }
        let context = format!("{context}, {}", if chunking { "BDAT" } else { "DATA" });
        let wire = wire(&context, chunking, async |connection| {
            connection.send(message()).await.map(|_| ())
        })
        .await;
        if chunking {
            assert_one_chunk(&context, &wire);
        } else {
            assert_one_message(&context, &wire);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_raw_message_smuggles_no_command() {
    for (attack, end) in ENDS {
        let ready = format!("Subject: {attack}\r\n\r\n{}", text(end));
        check(attack, || {
            Message::raw(ready.clone()).envelope(envelope(&["you@example.com"]))
        })
        .await;
        // In the header section, commands are no header fields.
        let early = format!("Subject: x{end}{SECOND}Bcc: a@b{end}\r\n\r\nend");
        let first = format!("{}Subject: x", &end[end.find('.').unwrap_or(0)..]);
        for text in [early, first] {
            let refused = Message::raw(text)
                .envelope(envelope(&["you@example.com"]))
                .prepare()
                .await
                .unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Request, "{attack}: {refused}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_anywhere_smuggles_no_command() {
    for (attack, end) in ENDS {
        let ready = format!("A: b\r\n\r\nx{end}QUIT{end}");
        for cut in (0..ready.len()).map(Some).chain([None]) {
            let context = format!("{attack}, cut at {cut:?}");
            let message = || {
                Message::raw_stream(Pieces::new(&ready, cut))
                    .envelope(envelope(&["you@example.com"]))
            };
            let wire = wire(&context, false, async |connection| {
                connection.send(message()).await.map(|_| ())
            })
            .await;
            assert_one_message(&context, &wire);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn single_steps_cut_anywhere_smuggle_no_command() {
    for (attack, end) in ENDS {
        let ready = format!("x{end}QUIT{end}");
        for cut in 0..=ready.len() {
            let context = format!("{attack}, in two pieces cut at {cut}");
            let wire = wire(&context, false, async |connection| {
                connection.mail(address("me@example.org")).await?;
                connection.rcpt(address("you@example.com")).await?;
                let mut writer = connection.data().await?;
                let (head, tail) = ready.split_at(cut);
                for piece in [head, "", tail] {
                    writer.write(piece.to_owned()).await?;
                }
                writer.finish().await.map(|_| ())
            });
            assert_one_message(&context, &wire.await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_built_message_smuggles_no_command() {
    let built = || {
        MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .subject("Hello")
    };
    for (attack, end) in ENDS {
        let text = text(end);
        check(attack, || built().text_body(text.clone()).into()).await;
        check(attack, || built().html_body(text.clone()).into()).await;
        check(attack, || {
            built()
                .text_body("x")
                .attachment("text/plain", "a.txt", text.clone())
                .into()
        })
        .await;
        check(attack, || {
            built()
                .text_body("x")
                .attachment("message/rfc822", "a.eml", text.clone())
                .into()
        })
        .await;
        check(attack, || {
            built().body(MimePart::raw(format!("\r\n{text}"))).into()
        })
        .await;
        check(attack, || {
            let attachment = Attachment::bytes("a.txt", "text/plain", text.clone());
            Message::from(built().text_body("x")).attach(attachment)
        })
        .await;
        check(attack, || {
            let attachment = Attachment::reader("a.txt", "text/plain", Pieces::new(&text, None));
            Message::from(built().text_body("x")).attach(attachment)
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn bare_line_ends_are_refused_if_changes_are_forbidden() {
    for (attack, end) in ENDS {
        let is_clean = end == "\r\n.\r\n";
        let ready = format!("A: b\r\n\r\nx{end}end\r\n");
        let message = Message::raw(ready.clone())
            .envelope(envelope(&["you@example.com"]))
            .line_ends(LineEnds::Refuse);
        assert_eq!(message.prepare().await.is_ok(), is_clean, "{attack}");
        // A stream is known only as it goes: the message is not ended then.
        let endpoint = plain();
        let acts = [
            up_to("DATA"),
            vec![
                send_reply("354 go\r\n"),
                Act::Hear("\r\n.\r\n"),
                send_reply("250 stored\r\n"),
                Act::Listen,
            ],
        ];
        let meeting = meet(acts.concat(), async |stream| {
            let stream_of_it = Message::raw_stream(Pieces::new(&ready, None))
                .envelope(envelope(&["you@example.com"]));
            let mut connection = Connection::from_stream(stream, &endpoint).await?;
            connection
                .send(stream_of_it.line_ends(LineEnds::Refuse))
                .await
        })
        .await;
        assert_eq!(meeting.result.is_ok(), is_clean, "{attack}");
        if !is_clean {
            assert!(
                !meeting.heard.ends_with(b"\r\n.\r\n"),
                "{attack}: it was ended"
            );
            assert!(!meeting.result.unwrap_err().outcome_unknown(), "{attack}");
        }
    }
}

/// No text has a NUL in it (RFC 2045, 2.7 and 2.8): it goes nowhere, and neither does the end of a
/// message with one.
#[tokio::test(start_paused = true)]
async fn a_nul_in_text_is_refused() {
    let endpoint = plain();
    let to = || envelope(&["you@example.com"]);
    for (attack, end) in NULS {
        let ready = format!("A: b\r\n\r\nx{end}{SECOND}");
        let built = || {
            MessageBuilder::new()
                .from("me@example.org")
                .to("you@example.com")
        };
        let of_raw_parts = built().body(MimePart::raw(ready.clone()));
        for message in [
            Message::raw(ready.clone()).envelope(to()),
            of_raw_parts.into(),
        ] {
            let error = message.prepare().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Request, "{attack}: {error}");
        }
        // What is text to the caller is encoded.
        let message = || {
            Message::from(built().text_body(ready.clone()).attachment(
                "text/plain",
                "a.txt",
                ready.clone(),
            ))
        };
        check(attack, message).await;

        for cut in 0..=ready.len() {
            let acts = [
                up_to("DATA"),
                vec![
                    send_reply("354 go\r\n"),
                    Act::Hear("\r\n.\r\n"),
                    send_reply("250 stored\r\n"),
                    Act::Listen,
                ],
            ];
            let meeting = meet(acts.concat(), async |stream| {
                let mut connection = Connection::from_stream(stream, &endpoint).await?;
                connection
                    .send(Message::raw_stream(Pieces::new(&ready, Some(cut))).envelope(to()))
                    .await
            })
            .await;
            let error = meeting.result.unwrap_err();
            assert!(
                error.kind() == ErrorKind::Input && !error.outcome_unknown(),
                "{attack}, cut at {cut}: {error}"
            );
            assert!(
                !meeting.heard.contains(&0) && !meeting.heard.ends_with(b"\r\n.\r\n"),
                "{attack}, cut at {cut}"
            );
        }

        let as_it_is = Message::raw(ready.clone())
            .line_ends(LineEnds::Keep)
            .envelope(to());
        assert_eq!(
            as_it_is.prepare().await.unwrap().content(),
            Content::Binary,
            "{attack}"
        );
    }
}
