//! Messages as they go: the same bytes as mail-builder's in memory, of the size announced, without
//! Bcc.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use envoi::mail_builder::MessageBuilder;
use envoi::mail_builder::headers::address::Address as Mailboxes;
use envoi::mail_builder::headers::raw::Raw;
use envoi::mail_builder::headers::text::Text;
use envoi::mail_builder::headers::url::URL;
use envoi::mail_builder::mime::MimePart;
use envoi::message::Body;
use envoi::proto::{Capabilities, Content, Limits, Output, ReplyParser, Stuffer};
use envoi::{Address, Attachment, Envelope, Error, ErrorKind, LineEnds, Message, Phase};
use proptest::prelude::*;
use support::noise;
use tokio::io::{AsyncRead, ReadBuf};

/// A reader that gives pieces of the sizes told, and waits between them.
struct Pieces {
    pieces: VecDeque<Vec<u8>>,
    waits: bool,
}

impl Pieces {
    fn new(bytes: &[u8], size: usize) -> Self {
        Pieces {
            pieces: bytes.chunks(size.max(1)).map(<[u8]>::to_vec).collect(),
            waits: true,
        }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waits = !self.waits;
        if !self.waits {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

async fn collect(body: &mut Body) -> Result<Vec<u8>, Error> {
    let mut chunks = Vec::new();
    while let Some(chunk) = body.chunk().await {
        chunks.push(chunk?);
    }
    assert!(body.chunk().await.is_none(), "the end is the end");
    assert!(chunks.iter().all(|chunk| !chunk.bytes().is_empty()));
    let bytes = chunks
        .iter()
        .flat_map(|chunk| chunk.bytes())
        .copied()
        .collect::<Vec<_>>();
    assert_eq!(bytes, normalized(&bytes), "nothing is left to repair");
    assert_eq!(stuffed_size(chunks), bytes.len() as u64);
    Ok(bytes)
}

/// What goes on the wire after DATA, without the doubled dots and the final one.
fn stuffed_size(chunks: impl IntoIterator<Item = envoi::proto::Chunk>) -> u64 {
    let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
    for chunk in chunks {
        stuffer.push(chunk, &mut output);
        output.advance(output.len());
    }
    stuffer.finish(&mut output);
    stuffer.bytes()
}

/// The bytes of a message; what is known of them must be true, and they must come again if they
/// can.
fn bytes_of(message: Message<'_>) -> Vec<u8> {
    run(async {
        let prepared = message.prepare().await.unwrap();
        let again = prepared.try_clone();
        assert_eq!(again.is_some(), prepared.can_clone());
        let (size, content) = (prepared.size(), prepared.content());
        let (longest, headers) = (prepared.longest_line(), prepared.headers());
        let bytes = collect(&mut prepared.into_body()).await.unwrap();
        if let Some(size) = size {
            assert_eq!(size, bytes.len() as u64);
        }
        match content {
            Content::SevenBit => assert!(bytes.is_ascii()),
            Content::EightBit => assert!(!bytes.is_ascii()),
            _ => {}
        }
        let rest = bytes.strip_prefix(&headers[..]).unwrap();
        assert!(headers.ends_with(b"\r\n") && (rest.is_empty() || rest.starts_with(b"\r\n")));
        assert!(!headers.windows(4).any(|end| end == b"\r\n\r\n"));
        if let Some(longest) = longest {
            let lines = bytes
                .split(|byte| *byte == b'\n')
                .map(|line| line.len().saturating_sub(1));
            let seen = lines.max().unwrap() as u64;
            assert!(
                longest == seen || size.is_none() && longest == 76 && seen < 76,
                "{longest}, {seen}"
            );
        }
        if let Some(again) = again {
            let third = again.try_clone().unwrap();
            for copy in [again, third] {
                assert_eq!(collect(&mut copy.into_body()).await.unwrap(), bytes);
            }
        }
        bytes
    })
}

/// The same in the form for a server that takes any bytes.
fn binary_bytes_of(message: Message<'_>) -> Vec<u8> {
    run(async {
        let mut prepared = message.binary(true).prepare().await.unwrap();
        let encoded = prepared.content();
        prepared.negotiate(&offering("250-CHUNKING\r\n250 BINARYMIME\r\n"));
        assert!(prepared.has_binary_form());
        assert_eq!(prepared.content(), Content::Binary);
        let (size, again) = (prepared.size(), prepared.try_clone());
        let mut body = prepared.into_body();
        let mut chunks = Vec::new();
        while let Some(chunk) = body.chunk().await {
            chunks.push(chunk.unwrap());
        }
        let bytes = chunks
            .iter()
            .flat_map(|chunk| chunk.bytes())
            .copied()
            .collect::<Vec<_>>();
        let (mut stuffer, mut output) = (Stuffer::verbatim(), Output::default());
        chunks
            .into_iter()
            .for_each(|chunk| stuffer.push(chunk, &mut output));
        stuffer.finish(&mut output);
        assert_eq!(
            (stuffer.bytes(), output.len()),
            (bytes.len() as u64, bytes.len())
        );
        assert!(size.is_none_or(|size| size == bytes.len() as u64));
        // To another server, it may go as base64.
        assert!(again.is_none_or(|again| again.content() == encoded));
        bytes
    })
}

fn offering(lines: &str) -> Capabilities {
    let mut reply = format!("250-mail.example.org\r\n{lines}").as_bytes().into();
    Capabilities::from_reply(
        &ReplyParser::new(Limits::default())
            .parse(&mut reply)
            .unwrap()
            .unwrap(),
    )
}

fn refused(message: impl Into<Message<'static>>) -> Error {
    run(message.into().prepare()).expect_err("it is refused")
}

/// CRLF, as the wire has it.
fn normalized(bytes: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, next) = match rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            None => (rest, &rest[rest.len()..]),
            Some(end) if rest[end..].starts_with(b"\r\n") => (&rest[..end], &rest[end + 2..]),
            Some(end) => (&rest[..end], &rest[end + 1..]),
        };
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
        rest = next;
    }
    wire
}

/// Boundaries are random: the first one found is named 0, and so on.
fn with_plain_boundaries(message: &[u8]) -> String {
    let mut message: String = message.iter().map(|byte| char::from(*byte)).collect();
    let mut from = 0;
    let mut count = 0;
    while let Some(at) = message[from..].find("boundary=\"") {
        from += at + "boundary=\"".len();
        let boundary = message[from..].split('"').next().unwrap().to_owned();
        message = message.replace(&boundary, &format!("boundary {count}"));
        count += 1;
    }
    message
}

fn mail() -> MessageBuilder<'static> {
    MessageBuilder::new()
        .from(("Alice", "alice@example.org"))
        .to("bob@example.com")
        .subject("Hello")
        .message_id("1@example.org")
        .date(1_700_000_000i64)
}

fn envelope() -> Envelope {
    Envelope::new(
        Address::new("a@example.org").unwrap(),
        [Address::new("b@example.org").unwrap()],
    )
    .unwrap()
}

fn in_temporary_folder(name: &str) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("message-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

const SIZES: [usize; 16] = [
    0, 1, 56, 57, 58, 32_767, 32_768, 32_769, 58_367, 58_368, 58_369, 116_736, 233_471, 233_472,
    233_473, 700_001,
];

#[test]
fn attachments_are_sent_as_mail_builder_writes_them() {
    for size in SIZES {
        let data = noise(size);
        let expected = mail()
            .text_body("Text")
            .attachment("image/png", "a.png", data.clone());
        let expected = with_plain_boundaries(&expected.write_to_vec().unwrap());

        let in_memory = mail()
            .text_body("Text")
            .attachment("image/png", "a.png", data.clone());
        assert_eq!(
            with_plain_boundaries(&bytes_of(in_memory.into())),
            expected,
            "in memory, {size}"
        );

        let borrowed = mail()
            .text_body("Text")
            .attachment("image/png", "a.png", data.as_slice());
        assert_eq!(
            with_plain_boundaries(&bytes_of(borrowed.into())),
            expected,
            "borrowed, {size}"
        );

        let bytes = Attachment::bytes("a.png", "image/png", data.clone());
        let bytes = Message::from(mail().text_body("Text")).attach(bytes);
        assert_eq!(
            with_plain_boundaries(&bytes_of(bytes)),
            expected,
            "bytes, {size}"
        );

        let path = in_temporary_folder(&format!("size-{size}"));
        std::fs::write(&path, &data).unwrap();
        let file = Attachment::file(&path)
            .name("a.png")
            .content_type("image/png");
        let file = Message::from(mail().text_body("Text")).attach(file);
        assert_eq!(
            with_plain_boundaries(&bytes_of(file)),
            expected,
            "file, {size}"
        );

        for piece in [1, 1000, 58_369] {
            let reader = Attachment::reader("a.png", "image/png", Pieces::new(&data, piece));
            let reader = Message::from(mail().text_body("Text")).attach(reader);
            assert_eq!(
                with_plain_boundaries(&bytes_of(reader)),
                expected,
                "reader, {size} in pieces of {piece}"
            );
        }
        let reader =
            Attachment::reader("a.png", "image/png", io::Cursor::new(data)).size(size as u64);
        let reader = Message::from(mail().text_body("Text")).attach(reader);
        assert_eq!(
            with_plain_boundaries(&bytes_of(reader)),
            expected,
            "reader of known size, {size}"
        );
    }
}

fn nested(data: &[u8]) -> MessageBuilder<'_> {
    let inner = MimePart::new(
        "multipart/related",
        vec![
            MimePart::new("text/html", "<p>J\u{f6}rg</p>").inline(),
            MimePart::new("image/png", data).inline().cid("logo"),
            MimePart::new("image/png", &[0u8][..]).attachment("zero.png"),
        ],
    );
    let raw = MimePart::raw(&b"Content-Type: application/x-raw\r\n\r\n.as it is\r\n"[..]);
    let encoded = MimePart::new("application/x-hex", &b"00ff\r\n"[..]).transfer_encoding("x-hex");
    // What stands for an attachment while the message is laid out is such a byte, but not this one.
    let byte = MimePart::new("a/b", &b"."[..]).transfer_encoding("8bit");
    let parts = vec![
        MimePart::new("multipart/alternative", vec![inner]),
        raw,
        encoded,
        byte,
        MimePart::new("a/b", data),
    ];
    mail().body(MimePart::new("multipart/mixed", parts))
}

#[test]
fn nested_parts_are_sent_as_mail_builder_writes_them() {
    for data in [&b""[..], b"\0", b"data", &noise(100_000)] {
        let expected = with_plain_boundaries(&nested(data).write_to_vec().unwrap());
        assert_eq!(
            with_plain_boundaries(&bytes_of(nested(data).into())),
            expected
        );
    }
}

#[test]
fn attachments_are_added_to_a_custom_body() {
    let built = || {
        mail().body(MimePart::new("text/x-own", "Own")).attachment(
            "image/png",
            "a.png",
            &b"AAA"[..],
        )
    };
    let alone = String::from_utf8(bytes_of(built().into())).unwrap();
    assert!(
        alone.contains("Content-Type: multipart/mixed") && alone.contains("\r\nQUFB\r\n"),
        "{alone}"
    );
    let both =
        Message::from(built()).attach(Attachment::bytes("b", "image/png", "BBB").inline("the-cid"));
    let both = String::from_utf8(bytes_of(both)).unwrap();
    let places = [
        "Own",
        "\r\nQUFB\r\n",
        "Content-ID: <the-cid>",
        "\r\nQkJC\r\n",
    ]
    .map(|text| both.find(text).unwrap());
    assert!(places.is_sorted(), "{both}");
    assert!(
        both.contains("Content-Disposition: inline; filename=\"b\""),
        "{both}"
    );
}

#[test]
fn text_attachments_arrive_unchanged() {
    // mail-builder has them as text; what that cannot carry is base64.
    for (text, as_text) in [
        ("a\r\nb\r\n", true),
        ("a\rb", false),
        ("a\0b", false),
        ("a\r", false),
    ] {
        let message = bytes_of(
            mail()
                .text_body("x")
                .attachment("text/plain", "a.txt", text)
                .into(),
        );
        let message = String::from_utf8(message).unwrap();
        assert_eq!(message.contains("base64"), !as_text, "{text:?}: {message}");
    }
}

#[test]
fn a_minimal_message_is_written_byte_for_byte() {
    assert_eq!(
        String::from_utf8(bytes_of(mail().text_body("Hello\n.\n").into())).unwrap(),
        "From: \"Alice\" <alice@example.org>\r\nTo: <bob@example.com>\r\nSubject: Hello\r\n\
         Message-ID: <1@example.org>\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMIME-Version: \
         1.0\r\n\
         Content-Type: text/plain; charset=\"utf-8\"\r\nContent-Transfer-Encoding: \
         7bit\r\n\r\nHello\r\n.\r\n"
    );
    let utf8 = |builder: MessageBuilder<'static>| {
        run(Message::from(builder).prepare())
            .unwrap()
            .has_utf8_headers()
    };
    assert!(!utf8(mail().subject("J\u{f6}rg").text_body("J\u{f6}rg")));
    assert!(
        !utf8(mail().bcc("j\u{f6}rg@example.org")),
        "it does not leave the machine"
    );
    assert!(utf8(mail().cc("j\u{f6}rg@example.org")));
    assert!(utf8(mail().body(MimePart::new(
        "multipart/mixed",
        vec![MimePart::new("a/b", "").location("\u{f6}")]
    ))));
    let raw = mail().body(MimePart::new("text/plain", "\u{f6}").transfer_encoding("8bit"));
    let prepared = run(Message::from(raw).prepare()).unwrap();
    assert_eq!(
        (prepared.content(), prepared.has_utf8_headers()),
        (Content::EightBit, false)
    );
}

#[test]
fn domains_beyond_ascii_do_not_need_smtputf8() {
    let built = |to: &'static str| {
        let mail = MessageBuilder::new()
            .from(("J\u{f6}rg", "joerg@b\u{fc}cher.example"))
            .to(("Bob", to));
        run(Message::from(mail.text_body("x")).prepare()).unwrap()
    };
    let prepared = built("bob@ex\u{e4}mple.org");
    let envelope = prepared.envelope();
    assert_eq!(envelope.recipients()[0].as_str(), "bob@ex\u{e4}mple.org");
    assert!(envelope.is_ascii() && !prepared.has_utf8_headers());
    let message = String::from_utf8(run(collect(&mut prepared.into_body())).unwrap()).unwrap();
    assert!(
        message.contains("<joerg@xn--bcher-kva.example>\r\n"),
        "{message}"
    );
    assert!(
        message.contains("To: \"Bob\" <bob@xn--exmple-cua.org>\r\n"),
        "{message}"
    );

    let prepared = built("b\u{f6}b@ex\u{e4}mple.org");
    assert!(!prepared.envelope().is_ascii() && prepared.has_utf8_headers());
    let message = String::from_utf8(run(collect(&mut prepared.into_body())).unwrap()).unwrap();
    assert!(
        message.contains("<b\u{f6}b@ex\u{e4}mple.org>\r\n"),
        "{message}"
    );

    // As U-labels, which it is mapped to.
    let prepared = built("B\u{d6}B@EX\u{c4}MPLE\u{3002}org");
    let message = String::from_utf8(run(collect(&mut prepared.into_body())).unwrap()).unwrap();
    assert!(
        message.contains("<B\u{d6}B@ex\u{e4}mple.org>\r\n"),
        "{message}"
    );

    // The same mailbox in both spellings.
    let both = MessageBuilder::new()
        .from("a@example.org")
        .to(vec!["bob@ex\u{e4}mple.org", "bob@xn--exmple-cua.org"])
        .text_body("x");
    assert_eq!(
        run(Message::from(both).prepare())
            .unwrap()
            .envelope()
            .recipients()
            .len(),
        1
    );
}

#[test]
fn a_file_removed_before_its_turn_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.mp4");
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    let mut body = run(Message::from(mail())
        .attach(Attachment::file(&path))
        .prepare())
    .unwrap()
    .into_body();
    std::fs::remove_file(&path).unwrap();
    let error = run(collect(&mut body)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(
        error.hint().unwrap().contains("Nothing was delivered"),
        "{error:?}"
    );
}

#[test]
fn generated_headers_are_not_added_twice() {
    let message = mail()
        .header("mime-version", Raw::new("1.0"))
        .header("DATE", Raw::new("Tue, 1 Jul 2003 10:52:37 +0200"));
    let mut message = message;
    message.headers.retain(|(name, _)| name != "Date");
    let message = String::from_utf8(bytes_of(message.text_body("x").into())).unwrap();
    assert_eq!(
        (
            message.matches("MIME-Version").count(),
            message.matches("Date").count()
        ),
        (1, 1),
        "{message}"
    );
}

#[test]
fn the_envelope_comes_from_the_headers() {
    let group = Mailboxes::new_group(
        Some("Team"),
        vec!["c@example.org".into(), "d@example.org".into()],
    );
    let builder = mail()
        .header("Reply-To", Raw::new("no-domain"))
        .cc(Mailboxes::new_list(vec![
            group,
            ("Bob", "bob@EXAMPLE.com").into(),
            "Bob@example.com".into(),
        ]))
        .header("BCC", Mailboxes::from("hidden@example.org"));
    let of = |builder: MessageBuilder<'static>| {
        let prepared = run(Message::from(builder).prepare()).unwrap();
        prepared.envelope().clone()
    };
    let envelope = of(builder.clone());
    assert_eq!(
        envelope.reverse_path().unwrap().as_str(),
        "alice@example.org"
    );
    let recipients: Vec<_> = envelope.recipients().iter().map(Address::as_str).collect();
    let expected = [
        "bob@example.com",
        "c@example.org",
        "d@example.org",
        "Bob@example.com",
        "hidden@example.org",
    ];
    assert_eq!(recipients, expected);
    let message = String::from_utf8(bytes_of(builder.clone().into())).unwrap();
    assert!(!message.contains("hidden"), "{message}");
    assert!(message.contains("\r\nReply-To: no-domain\r\n"), "{message}");

    assert_eq!(
        of(builder.clone().sender("s@example.org"))
            .reverse_path()
            .unwrap()
            .as_str(),
        "s@example.org"
    );
    let given = self::envelope();
    let prepared = run(Message::from(builder).envelope(given.clone()).prepare()).unwrap();
    assert_eq!(*prepared.envelope(), given);
}

#[test]
fn invalid_messages_are_refused_before_connecting() {
    let built = |builder: MessageBuilder<'static>| refused(builder);
    for (error, says) in [
        (
            built(MessageBuilder::new().from("a@example.org").text_body("x")),
            "no recipient",
        ),
        (
            built(MessageBuilder::new().to("a@example.org").text_body("x")),
            "no sender",
        ),
        (
            built(mail().subject("a\r\nBcc: b")),
            "the Subject header contains a line break",
        ),
        (built(mail().subject("a\nb")), "line break"),
        (built(mail().subject("a\rb")), "line break"),
        (
            built(mail().subject("a\0b")),
            "the Subject header contains a NUL",
        ),
        (
            built(mail().cc(("a\nb", "a@example.org"))),
            "the Cc header contains a line break",
        ),
        (
            built(mail().cc("a\r\n@example.org")),
            "it contains a carriage return",
        ),
        (
            built(mail().reply_to("a\r\n@example.org")),
            "the Reply-To header contains a line break",
        ),
        (
            built(mail().cc(("group\n", vec![("a", "a@example.org")]))),
            "the Cc header",
        ),
        (
            built(mail().cc("a b@example.org")),
            "the address \"a b@example.org\" is not valid",
        ),
        (
            built(mail().header("To", Text::new("a@example.org"))),
            "the To header is text",
        ),
        (
            built(mail().header("X-A", Raw::new("a\r\n b"))),
            "the X-A header",
        ),
        (
            built(mail().header("X-A: b\r\nX-C", Raw::new("a"))),
            "is not the name of a header",
        ),
        (
            built(mail().header("", Raw::new("a"))),
            "is not the name of a header",
        ),
        (built(mail().in_reply_to("a\nb")), "the In-Reply-To header"),
        (
            built(mail().attachment("a/b\nc", "a", "x")),
            "the Content-Type header",
        ),
        (
            built(mail().attachment("a/b", "a\r\nb", "x")),
            "the Content-Disposition header",
        ),
        (
            built(mail().body(MimePart::new(
                "m/m",
                vec![MimePart::new("a/b", "x").cid("\n")],
            ))),
            "the Content-ID header",
        ),
        (
            refused(Message::from(mail()).attach(Attachment::bytes("a\nb", "a/b", ""))),
            "the Content-Disposition header",
        ),
        (
            refused(Message::from(mail()).attach(Attachment::bytes("a", "a\nb", ""))),
            "the Content-Type header",
        ),
        (
            refused(Message::from(mail()).attach(Attachment::bytes("a", "a/b", "").inline("\n"))),
            "the Content-ID header",
        ),
        (
            refused(Message::from(mail()).attach(Attachment::bytes("a", "a/b", "abc").size(2))),
            "the 2 bytes",
        ),
        (refused(Message::raw("x")), "needs an envelope"),
        (
            refused(
                Message::raw("x")
                    .envelope(envelope())
                    .attach(Attachment::file("x")),
            ),
            "takes no attachments",
        ),
    ] {
        assert!(
            error.to_string().contains(says),
            "{error} should say {says:?}"
        );
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Request, Phase::Setup),
            "{error}"
        );
    }
}

#[test]
fn unreadable_files_are_refused_before_connecting() {
    let missing = in_temporary_folder("missing.pdf");
    let folder = missing.parent().unwrap().to_owned();
    for message in [
        Message::from(mail()).attach(Attachment::file(&missing)),
        Message::raw_file(&missing).envelope(envelope()),
    ] {
        let error = refused(message);
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Input, Phase::Setup)
        );
        assert!(error.to_string().contains("missing.pdf"), "{error}");
    }
    let error = refused(Message::from(mail()).attach(Attachment::file(&folder)));
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("is a directory"), "{error}");
    #[cfg(unix)]
    {
        let error = refused(Message::from(mail()).attach(Attachment::file("/dev/null")));
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}

/// In /proc, the size of every file is reported as 0.
#[cfg(target_os = "linux")]
#[test]
fn files_that_report_size_0_are_sent_whole() {
    use base64::Engine as _;

    let content = std::fs::read("/proc/version").unwrap();
    assert_eq!(std::fs::metadata("/proc/version").unwrap().len(), 0);
    let message = Message::from(mail()).attach(Attachment::file("/proc/version"));
    let prepared = run(message.prepare()).unwrap();
    let size = prepared.size().unwrap();
    let bytes = run(collect(&mut prepared.into_body())).unwrap();
    assert_eq!(size, bytes.len() as u64);
    let base64 = base64::engine::general_purpose::STANDARD.encode(&content);
    let text = String::from_utf8(bytes).unwrap().replace("\r\n", "");
    assert!(text.contains(&base64), "{text}");
    // A ready message is looked over like any other: here, it has lines that end with LF alone.
    let ready = Message::raw_file("/proc/self/status")
        .envelope(envelope())
        .line_ends(LineEnds::Refuse);
    assert!(refused(ready).to_string().contains("ends with LF alone"));
    // An empty file is empty.
    let path = in_temporary_folder("empty");
    std::fs::write(&path, "").unwrap();
    run(Message::from(mail())
        .attach(Attachment::file(&path))
        .prepare())
    .unwrap();
    // In /sys, it is that of a page.
    let page = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if page
        .metadata()
        .is_ok_and(|metadata| metadata.len() > std::fs::read(page).unwrap().len() as u64)
    {
        let message = Message::from(mail()).attach(Attachment::file(page));
        let error = run(async {
            collect(&mut message.prepare().await.unwrap().into_body())
                .await
                .unwrap_err()
        });
        assert!(
            error
                .to_string()
                .contains("has fewer than the 4096 bytes of its size"),
            "{error}"
        );
    }
}

/// Neither does a thread wait in `open`, nor is anything sent.
#[cfg(unix)]
#[test]
fn a_file_that_becomes_a_fifo_is_an_error() {
    for ready in [true, false] {
        let path = in_temporary_folder("becomes-a-fifo");
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, "Subject: a\r\n\r\nb\r\n").unwrap();
        let message = match ready {
            true => Message::raw_file(&path).envelope(envelope()),
            false => Message::from(mail()).attach(Attachment::file(&path)),
        };
        let error = run(async {
            let mut body = message.prepare().await.unwrap().into_body();
            std::fs::remove_file(&path).unwrap();
            assert!(
                std::process::Command::new("mkfifo")
                    .arg(&path)
                    .status()
                    .unwrap()
                    .success()
            );
            collect(&mut body).await.unwrap_err()
        });
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Input, Phase::Body)
        );
        assert!(
            error
                .to_string()
                .contains("has changed since it was looked at"),
            "{error}"
        );
    }
}

#[test]
fn an_impossible_size_does_not_overflow() {
    for size in [u64::MAX, u64::MAX - 1, u64::MAX / 2, u64::MAX / 4 * 3] {
        let attachment = || Attachment::reader("a", "a/b", tokio::io::empty()).size(size);
        for message in [
            Message::from(mail())
                .attach(attachment())
                .attach(attachment()),
            Message::from(mail()).attach(attachment()).binary(true),
        ] {
            let prepared = run(message.prepare()).unwrap();
            assert!(prepared.size().unwrap() >= size, "{size}");
            assert!(
                run(collect(&mut prepared.into_body()))
                    .unwrap_err()
                    .to_string()
                    .contains("fewer than the")
            );
        }
    }
}

#[test]
fn a_file_changed_while_sending_is_an_error() {
    type Change = fn(&Path);
    /// A ready message has a header, and no NUL.
    fn text(size: usize) -> Vec<u8> {
        let body = noise(size - 8).into_iter().map(|byte| byte.max(1));
        b"A: b\r\n\r\n".iter().copied().chain(body).collect()
    }
    let changes: [(&str, Change); 4] = [
        ("shrinks", |path| {
            std::fs::write(path, text(3_999_999)).unwrap()
        }),
        ("grows", |path| {
            std::fs::write(path, text(4_000_001)).unwrap()
        }),
        ("goes", |path| std::fs::remove_file(path).unwrap()),
        ("is touched", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        }),
    ];
    for (name, change) in changes {
        for early in [true, false] {
            if name == "goes" && !early {
                continue; // It is open by then.
            }
            for ready in [true, false] {
                let path = in_temporary_folder("changing");
                // More than is read ahead.
                std::fs::write(&path, text(4_000_000)).unwrap();
                let message = match ready {
                    true => Message::raw_file(&path).envelope(envelope()),
                    false => Message::from(mail()).attach(Attachment::file(&path)),
                };
                let error = run(async {
                    let mut body = message.prepare().await.unwrap().into_body();
                    // The attachment is begun with its first chunk after the headers.
                    for _ in 0..if early { 0 } else { 2 } {
                        body.chunk().await.unwrap().unwrap();
                    }
                    change(&path);
                    let error = collect(&mut body).await.unwrap_err();
                    assert!(body.chunk().await.unwrap().is_err(), "an error is no end");
                    error
                });
                assert_eq!(
                    (error.kind(), error.phase()),
                    (ErrorKind::Input, Phase::Body),
                    "{name}: {error}"
                );
                assert!(error.to_string().contains("changing"), "{name}: {error}");
            }
        }
    }
}

#[test]
fn a_stream_that_fails_or_has_another_size_is_an_error() {
    struct Failing;
    impl AsyncRead for Failing {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("the disk is on fire")))
        }
    }
    let data = noise(100_000);
    for (attachment, says) in [
        (
            Attachment::reader("a.bin", "a/b", Pieces::new(&data, 999)).size(99_999),
            "more than the 99999 bytes",
        ),
        (
            Attachment::reader("a.bin", "a/b", Pieces::new(&data, 999)).size(100_001),
            "fewer than the 100001 bytes",
        ),
        (
            Attachment::reader("a.bin", "a/b", tokio::io::repeat(1)).size(0),
            "more than the 0 bytes",
        ),
        (Attachment::reader("a.bin", "a/b", Failing), "on fire"),
    ] {
        let error = run(async {
            let prepared = Message::from(mail()).attach(attachment).prepare().await;
            let prepared = prepared.unwrap();
            assert!(!prepared.can_clone() && prepared.try_clone().is_none());
            let mut body = prepared.into_body();
            let error = collect(&mut body).await.unwrap_err();
            assert!(body.chunk().await.unwrap().is_err(), "an error is no end");
            error
        });
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Input, Phase::Body)
        );
        assert!(
            error.to_string().contains(says) && error.to_string().contains("a.bin"),
            "{error}"
        );
    }
}

#[test]
fn a_reader_that_panics_does_not_end_the_message() {
    struct Panics;
    impl AsyncRead for Panics {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            panic!("on purpose")
        }
    }
    run(async {
        let message = Message::from(mail()).attach(Attachment::reader("a", "a/b", Panics));
        let mut body = message.prepare().await.unwrap().into_body();
        body.chunk().await.unwrap().unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            body.poll_chunk(&mut cx).is_ready()
        }));
        assert!(polled.is_err());
        assert!(body.chunk().await.unwrap().is_err());
    });
}

#[test]
fn bare_line_ends_are_refused_on_request() {
    let message = "To: a\r\nBcc: b\r\n c\r\n\r\nfine\r\nnot fine\nfine\r\n";
    let path = in_temporary_folder("bare.eml");
    std::fs::write(&path, message).unwrap();
    for ready in [Message::raw(message), Message::raw_file(&path)] {
        let error = refused(ready.envelope(envelope()).line_ends(LineEnds::Refuse));
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Request, Phase::Setup)
        );
        assert!(
            error
                .to_string()
                .contains("line 6 of the message ends with LF alone"),
            "{error}"
        );
    }
    for piece in [1, 7, 100] {
        let stream =
            Message::raw_stream(Pieces::new(message.as_bytes(), piece)).envelope(envelope());
        let error = run(async {
            let prepared = stream.line_ends(LineEnds::Refuse).prepare().await.unwrap();
            collect(&mut prepared.into_body()).await.unwrap_err()
        });
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Input, Phase::Body)
        );
        assert!(
            error
                .to_string()
                .contains("line 6 of the message ends with LF alone"),
            "{error}"
        );
    }
    for last in ["a\r", "a\n"] {
        let message = format!("A: b\r\n\r\n{last}");
        assert!(
            refused(
                Message::raw(message.clone())
                    .envelope(envelope())
                    .line_ends(LineEnds::Refuse)
            )
            .to_string()
            .contains("line 3 of the message ends with")
        );
        let stream = Message::raw_stream(io::Cursor::new(message))
            .envelope(envelope())
            .line_ends(LineEnds::Refuse);
        assert!(
            run(async { collect(&mut stream.prepare().await.unwrap().into_body()).await }).is_err()
        );
    }
    let fine = || {
        Message::raw("A: b\r\n\r\nb")
            .envelope(envelope())
            .line_ends(LineEnds::Refuse)
    };
    assert_eq!(bytes_of(fine()), b"A: b\r\n\r\nb\r\n");
}

/// What a ready message becomes, whatever way it comes.
fn ready_in_every_way(message: &[u8], piece: usize) -> Vec<u8> {
    let expected = bytes_of(Message::raw(message.to_vec()).envelope(envelope()));
    let path = in_temporary_folder(&format!("ready-{:?}", std::thread::current().id()));
    std::fs::write(&path, message).unwrap();
    assert_eq!(
        bytes_of(Message::raw_file(&path).envelope(envelope())),
        expected,
        "from a file"
    );
    let stream = Message::raw_stream(Pieces::new(message, piece)).envelope(envelope());
    assert_eq!(bytes_of(stream), expected, "from a stream");
    expected
}

/// How a ready message is refused, whatever way it comes.
fn refused_in_every_way(message: &[u8], piece: usize, line_ends: LineEnds) -> [Error; 3] {
    let path = in_temporary_folder(&format!("refused-{:?}", std::thread::current().id()));
    std::fs::write(&path, message).unwrap();
    let stream = Message::raw_stream(Pieces::new(message, piece));
    [
        Message::raw(message.to_vec()),
        Message::raw_file(&path),
        stream,
    ]
    .map(|message| refused(message.envelope(envelope()).line_ends(line_ends)))
}

#[test]
fn raw_messages_lose_bcc_and_nothing_else() {
    for (message, expected) in [
        (
            &b"Subject: x\r\n\r\n.\r\n..\r\n"[..],
            &b"Subject: x\r\n\r\n.\r\n..\r\n"[..],
        ),
        (
            b"bCC: x,\r\n y\r\nTo: z\r\n\r\nBcc: body\r\n",
            b"To: z\r\n\r\nBcc: body\r\n",
        ),
        (
            b"To: z\nResent-Bcc: x\n\tx\n\nbody",
            b"To: z\r\n\r\nbody\r\n",
        ),
    ] {
        assert_eq!(ready_in_every_way(message, 1), expected);
    }
    let mut long = b"To: a\r\nBcc: b\r\n\r\n".to_vec();
    long.extend(b"A line of text, and no more than that.\r\n".repeat(20_000));
    let mut expected = b"To: a\r\n\r\n".to_vec();
    expected.extend_from_slice(&long[17..]);
    assert_eq!(ready_in_every_way(&long, 5_000), expected);
}

#[test]
fn only_leaf_parts_are_sent_as_binary() {
    let data = noise(200);
    let leaf = || MimePart::new("a/b", data.as_slice());
    let fake = "Content-Transfer-Encoding: base64\r\n";
    let signed = MimePart::new("multipart/signed", vec![leaf()]);
    let labelled = MimePart::new("multipart/mixed", vec![leaf()]).transfer_encoding("7bit");
    let inner = MimePart::new(
        "multipart/related",
        vec![leaf(), MimePart::new("text/plain", fake)],
    );
    let parts = vec![
        MimePart::new(
            "multipart/alternative",
            vec![MimePart::new("text/plain", fake)],
        ),
        signed,
        labelled,
        inner,
    ];
    let message = || Message::from(mail().body(MimePart::new("multipart/mixed", parts.clone())));
    let binary = with_plain_boundaries(&binary_bytes_of(message()));
    let count = |text: &str, field: &str| {
        text.matches(&format!("Content-Transfer-Encoding: {field}\r\n"))
            .count()
    };
    assert_eq!(
        (count(&binary, "binary"), count(&binary, "base64")),
        (3, 2 + 2),
        "{binary}"
    );
    let as_text: String = data.iter().map(|byte| char::from(*byte)).collect();
    assert_eq!(
        binary
            .matches(&format!(
                "Content-Transfer-Encoding: binary\r\n\r\n{as_text}\r\n--"
            ))
            .count(),
        1
    );

    // Not asked for, not offered, or nothing to gain.
    let content = |message: Message<'static>, offered: &str| {
        let mut prepared = run(message.prepare()).unwrap();
        prepared.negotiate(&offering(offered));
        prepared.content()
    };
    let attached =
        || Message::from(mail().text_body("Text")).attach(Attachment::bytes("a", "a/b", vec![0]));
    let both = "250-CHUNKING\r\n250 BINARYMIME\r\n";
    assert_eq!(content(attached().binary(true), both), Content::Binary);
    assert_eq!(content(attached(), both), Content::SevenBit);
    assert_eq!(
        content(attached().binary(true), "250 CHUNKING\r\n"),
        Content::SevenBit
    );
    assert_eq!(
        content(attached().binary(true), "250 BINARYMIME\r\n"),
        Content::SevenBit
    );
    assert_eq!(
        content(Message::from(mail().text_body("Text")).binary(true), both),
        Content::SevenBit
    );
    // Text has the line ends that it would have behind DATA.
    let raw = MimePart::raw(&b"Content-Type: a/b\n\nx\ry"[..]);
    let raw = mail().body(MimePart::new(
        "multipart/mixed",
        vec![raw, MimePart::new("a/b", &b"\r"[..])],
    ));
    let raw = binary_bytes_of(Message::from(raw));
    let has = |what: &[u8]| raw.windows(what.len()).any(|bytes| bytes == what);
    assert!(has(b"Content-Type: a/b\r\n\r\nx\r\ny\r\n--") && has(b"binary\r\n\r\n\r\r\n--"));
}

#[test]
fn kept_line_ends_make_a_message_binary() {
    let look = |message: Message<'static>| {
        run(async {
            let prepared = message
                .envelope(envelope())
                .line_ends(LineEnds::Keep)
                .prepare()
                .await
                .unwrap();
            let (size, content) = (prepared.size(), prepared.content());
            let mut body = prepared.into_body();
            let mut bytes = Vec::new();
            while let Some(chunk) = body.chunk().await {
                bytes.extend_from_slice(chunk.unwrap().bytes());
            }
            (size, content, bytes)
        })
    };
    for (message, kept) in [
        ("To: a\r\n\r\nb\n\rc", "To: a\r\n\r\nb\n\rc"),
        ("To: a\r\nBcc: b\r\n\r\nb\n", "To: a\r\n\r\nb\n"),
        ("To: a\r\n\r\nb\r", "To: a\r\n\r\nb\r"),
    ] {
        let path = in_temporary_folder("kept.eml");
        std::fs::write(&path, message).unwrap();
        for ready in [Message::raw(message), Message::raw_file(&path)] {
            let expected = (
                Some(kept.len() as u64),
                Content::Binary,
                kept.as_bytes().to_vec(),
            );
            assert_eq!(look(ready), expected, "{message:?}");
        }
        let (size, content, bytes) = look(Message::raw_stream(io::Cursor::new(message)));
        assert_eq!(
            (size, content, &*bytes),
            (None, Content::Binary, kept.as_bytes())
        );
    }
    // There is nothing to keep.
    assert_eq!(
        look(Message::raw("To: a\r\n\r\nb\r\nc")).1,
        Content::SevenBit
    );
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(&b"\r\n"[..]),
        Just(&b"\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"Bcc:"[..]),
        Just(&b"resent-bcc :"[..]),
        Just(&b"Bc"[..]),
        Just(&b"X: a"[..]),
        Just(&b" "[..]),
        Just(&b"."[..]),
        Just(&b"\xff"[..]),
        Just("\u{feff}".as_bytes()),
        Just(&b"From x"[..]),
    ];
    proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

/// A message by looking at whole lines; `None` where no message may be made of it.
fn repaired(message: &[u8], line_ends: LineEnds) -> Option<Vec<u8>> {
    let (mut kept, mut rest, mut fields, mut hides) = (Vec::new(), message, 0, None);
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |end| end + 1);
        let (line, next) = rest.split_at(end);
        rest = next;
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text
            .strip_suffix(b"\r")
            .filter(|_| line.ends_with(b"\n"))
            .unwrap_or(text);
        let text = if hides.is_none() {
            text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text)
        } else {
            text
        };
        let is_mbox_line =
            text.starts_with(b"From ") && text.split(|byte| *byte == b':').next() != Some(b"From ");
        if hides.is_none() && (text.trim_ascii().is_empty() || is_mbox_line) {
            continue;
        }
        let text = std::str::from_utf8(text).ok()?;
        let is_bare =
            line.ends_with(b"\n") && !line.ends_with(b"\r\n") && line_ends != LineEnds::Normalize;
        if is_bare || text.contains('\r') {
            return None;
        }
        let is_folded = text.starts_with(' ') && hides.is_some();
        if !text.is_empty() && !is_folded {
            let name = text.split_once(':')?.0.trim_end_matches(' ');
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            hides = Some(["bcc", "resent-bcc"].contains(&&*name.to_ascii_lowercase()));
        }
        if text.is_empty() {
            kept.extend_from_slice(b"\r\n");
            break;
        }
        if hides == Some(false) {
            fields += 1;
            kept.extend_from_slice(text.as_bytes());
            kept.extend_from_slice(b"\r\n");
        }
    }
    kept.extend_from_slice(rest);
    (fields > 0).then_some(kept)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_raw_message_is_repaired_or_refused(message in any_message(), piece in 1usize..10) {
        match repaired(&message, LineEnds::Normalize) {
            Some(expected) => {
                prop_assert_eq!(ready_in_every_way(&message, piece), normalized(&expected));
            }
            None => {
                for error in refused_in_every_way(&message, piece, LineEnds::Normalize) {
                    prop_assert_eq!(error.kind(), ErrorKind::Request);
                    prop_assert_eq!(error.phase(), Phase::Setup);
                }
            }
        }
        if repaired(&message, LineEnds::Keep).is_none() {
            refused_in_every_way(&message, piece, LineEnds::Keep);
            refused_in_every_way(&message, piece, LineEnds::Refuse);
        }
    }

    #[test]
    fn any_attachments_read_in_any_pieces_give_the_same_message(
        parts in proptest::collection::vec((0usize..150_000, 1usize..70_000, 0u8..4), 0..4),
        text in "[ -~\r\n.]{0,300}",
    ) {
        let mut in_memory = mail().text_body(text.clone());
        let mut streamed = Message::from(mail().text_body(text));
        for (size, piece, way) in parts {
            let data = noise(size);
            in_memory = in_memory.attachment("a/b", "a.bin", data.clone());
            streamed = streamed.attach(match way {
                0 => Attachment::bytes("a.bin", "a/b", data),
                1 => Attachment::reader("a.bin", "a/b", Pieces::new(&data, piece)),
                2 => Attachment::reader("a.bin", "a/b", Pieces::new(&data, piece))
                    .size(size as u64),
                _ => {
                    let path = in_temporary_folder(&format!("any-{size}"));
                    std::fs::write(&path, data).unwrap();
                    Attachment::file(path).name("a.bin").content_type("a/b")
                }
            });
        }
        let written = in_memory.write_to_vec().unwrap();
        let expected = with_plain_boundaries(&normalized(&written));
        prop_assert_eq!(with_plain_boundaries(&bytes_of(streamed)), expected);
    }

    #[test]
    fn any_attachments_arrive_unchanged(
        parts in proptest::collection::vec((0usize..150_000, 1usize..70_000, 0u8..5), 1..4),
        text in "[ -~\r\n.]{0,300}",
    ) {
        let mut mail = mail().text_body(text);
        let mut in_memory: Vec<_> = mail.text_body.clone().into_iter().collect();
        let mut streamed = Vec::new();
        for (size, piece, way) in parts {
            let data = noise(size);
            let part = MimePart::new("a/b", data.clone()).attachment("a.bin")
                .transfer_encoding("binary");
            // mail-builder's own go before those that are streamed.
            if way == 4 {
                in_memory.insert(in_memory.len() - streamed.len(), part);
                mail = mail.attachment("a/b", "a.bin", data);
                continue;
            }
            in_memory.push(part);
            streamed.push(match way {
                0 => Attachment::bytes("a.bin", "a/b", data),
                1 => Attachment::reader("a.bin", "a/b", Pieces::new(&data, piece)),
                2 => Attachment::reader("a.bin", "a/b", Pieces::new(&data, piece))
                    .size(size as u64),
                _ => {
                    let path = in_temporary_folder(&format!("any-binary-{size}"));
                    std::fs::write(&path, data).unwrap();
                    Attachment::file(path).name("a.bin").content_type("a/b")
                }
            });
        }
        let whole = MimePart::new("multipart/mixed", in_memory).transfer_encoding("binary");
        let whole = self::mail().body(whole).write_to_vec().unwrap();
        // mail-builder leaves a CR alone in text. Nothing of the noise is text, and what it has is
        // not changed.
        let end = whole.windows(8).position(|bytes| bytes == b"a.bin\"\r\n").unwrap();
        let (text, noise) = whole.split_at(end);
        let text = normalized(text);
        let expected = with_plain_boundaries(&[&text[..text.len() - 2], noise].concat());
        let message = streamed.into_iter().fold(Message::from(mail), Message::attach);
        prop_assert_eq!(with_plain_boundaries(&binary_bytes_of(message)), expected);
    }
}

fn text_of(message: impl Into<Message<'static>>) -> String {
    String::from_utf8(bytes_of(message.into())).unwrap()
}

#[test]
fn invalid_header_values_are_repaired() {
    let message = text_of(
        MessageBuilder::new()
            .from("old@example.org")
            .from("me@example.org")
            .to("a@example.com")
            .to(vec!["b@example.com", "c@example.com"])
            .cc(Vec::<&str>::new())
            .reply_to(Mailboxes::new_list(Vec::new()))
            .subject("first")
            .header("subject", Text::new("second"))
            .message_id("<1@example.org>")
            .in_reply_to("<2@example.org>")
            .references("<2@example.org> <3@example.org>\t<4@example.org>")
            .header("Resent-BCC", Mailboxes::from("hidden@example.org"))
            .header("bcc", Mailboxes::from("hidden@example.org"))
            .text_body("\u{feff}Text")
            .html_body("\u{feff}<p>Text</p>"),
    );
    for line in [
        "From: <me@example.org>",
        "To: <a@example.com>, <b@example.com>, <c@example.com>",
        "Subject: second",
        "Message-ID: <1@example.org>",
        "In-Reply-To: <2@example.org>",
        "References: <2@example.org> <3@example.org> <4@example.org>",
        "Text",
        "<p>Text</p>",
    ] {
        assert!(
            message.lines().any(|written| written == line),
            "{line} in {message}"
        );
    }
    for word in [
        "old@",
        "first",
        "Cc",
        "Reply-To: ",
        "hidden",
        "cc:",
        "\u{feff}",
    ] {
        let found = message.replace("In-Reply-To: ", "").contains(word);
        assert!(!found, "{word} in {message}");
    }
    let prepared = run(Message::from(
        mail()
            .from("last@example.org")
            .cc("bob@EXAMPLE.com")
            .cc("d@x.example"),
    )
    .prepare())
    .unwrap();
    let envelope = prepared.envelope();
    assert_eq!(
        envelope.reverse_path().unwrap().as_str(),
        "last@example.org"
    );
    assert_eq!(envelope.recipients().len(), 2);
    // No parameter is there twice.
    let part = |media_type: &'static str| text_of(mail().body(MimePart::new(media_type, "x")));
    assert!(
        part("text/plain; charset=us-ascii")
            .contains("Content-Type: text/plain; charset=\"us-ascii\"\r\n")
    );
    assert!(
        part("a/b; name=\"x; \\\"y\";")
            .contains("Content-Type: a/b; name=\"x; \\\"y\"; charset=\"utf-8\"\r\n")
    );
    let parts = MimePart::new(
        "multipart/mixed; boundary=b",
        vec![MimePart::new("a/b", "x")],
    );
    let message = text_of(mail().body(parts));
    assert!(
        message.contains("Content-Type: multipart/mixed; boundary=\"b\"\r\n")
            && message.contains("--b--"),
        "{message}"
    );
    assert!(
        !text_of(mail().header("X-A", URL::new_list(std::iter::empty::<&str>()))).contains("X-A")
    );
    // With a Sender, there may be two authors; an empty group is a value.
    let two = mail()
        .from(vec!["a@x.example", "b@x.example"])
        .sender("a@x.example");
    assert!(
        text_of(two.cc(Mailboxes::new_group(Some("empty"), Vec::new())))
            .contains("Cc: \"empty\":;\r\n")
    );
    // The caller's own version of MIME is the one.
    let raw = MimePart::raw("MIME-Version: 1.0\r\nBcc: h@x\r\nContent-Type: a/b\r\n\r\nraw\r\n");
    let message = text_of(mail().body(raw));
    assert!(
        message.ends_with("MIME-Version: 1.0\r\nContent-Type: a/b\r\n\r\nraw\r\n"),
        "{message}"
    );
    assert_eq!(message.matches("MIME-Version").count(), 1, "{message}");
    let bare = text_of(
        mail()
            .header("Content-Type", Raw::new("a/b"))
            .body(MimePart::raw("\r\nraw\r\n")),
    );
    assert!(
        bare.contains("\r\nContent-Type: a/b\r\n") && bare.ends_with("\r\n\r\nraw\r\n"),
        "{bare}"
    );
}

#[test]
fn forbidden_headers_are_refused() {
    let attach = |content_type: &str| {
        Message::from(mail()).attach(Attachment::bytes("a", content_type, "x"))
    };
    let inline =
        |id: &str| Message::from(mail()).attach(Attachment::bytes("a", "a/b", "x").inline(id));
    for (message, says) in [
        (
            mail().from(vec!["a@x.example", "b@x.example"]).into(),
            "the From header has 2 addresses, and there is no Sender",
        ),
        (
            mail()
                .header("From", Raw::new("a@x.example, b@x.example"))
                .envelope(),
            "the From header has 2 addresses",
        ),
        (
            mail().sender(vec!["a@x.example", "b@x.example"]).into(),
            "the Sender header has 2 addresses",
        ),
        (
            mail()
                .header("Content-Type", Raw::new("text/html"))
                .text_body("x")
                .into(),
            "Content-Type header beside the one",
        ),
        (
            mail()
                .header("content-transfer-encoding", Raw::new("8bit"))
                .into(),
            "Content-Transfer-Encoding header beside",
        ),
        (
            mail().body(MimePart::raw("Subject: a\r\n\r\n")).into(),
            "Subject header beside the one of its content",
        ),
        (
            mail().body(MimePart::raw("Hello")).into(),
            "line 1 of the part that brings its own headers is not a header field",
        ),
        (
            mail().body(MimePart::raw(&b"X: \xff\r\n\r\n"[..])).into(),
            "is not UTF-8: \"X: \\xff\"",
        ),
        (
            mail().reply_to("no-domain").into(),
            "the Reply-To header: the address \"no-domain\" is not valid: it has no @",
        ),
        (
            mail().reply_to("").into(),
            "the Reply-To header: the address \"\" is not valid: it is empty",
        ),
        (
            mail().reply_to("a\u{200b}@x.example").into(),
            "U+200B, which is not visible",
        ),
        (
            mail()
                .header("Resent-To", Mailboxes::from("a b@x.example"))
                .into(),
            "the Resent-To header: the address",
        ),
        (
            mail().header("Reply-To", Text::new("a@x.example")).into(),
            "the Reply-To header is text",
        ),
        (
            mail()
                .header("Reply-To", Mailboxes::from("a@x.example"))
                .header("Reply-To", Raw::new("b@x.example"))
                .into(),
            "given twice",
        ),
        (
            mail().message_id("").message_id("a b@x").into(),
            "the Message-ID header is not one identifier: \"a b@x\"",
        ),
        (
            mail().message_id("<a@x> <b@x>").into(),
            "the Message-ID header is not one identifier",
        ),
        (
            mail().message_id("<<a@x>>").into(),
            "the Message-ID header is not one identifier",
        ),
        (
            mail().message_id("<a@x").into(),
            "the Message-ID header is not one identifier",
        ),
        (
            mail().message_id("a@x>").into(),
            "the Message-ID header is not one identifier",
        ),
        (
            mail().message_id("a").into(),
            "the Message-ID header is not one identifier",
        ),
        (
            mail().in_reply_to("<a@x> b@x").into(),
            "the In-Reply-To header is not a list of identifiers",
        ),
        (
            inline("<a> <b>"),
            "the Content-ID header is not one identifier: \"<a> <b>\"",
        ),
        (inline("a b"), "the Content-ID header is not one identifier"),
        (inline(""), "the Content-ID header is not one identifier"),
        (
            attach(""),
            "the Content-Type header is not a media type: \"\"",
        ),
        (
            attach("text"),
            "the Content-Type header is not a media type: \"text\"",
        ),
        (attach("text/"), "is not a media type"),
        (attach("text/plain; charset"), "is not a media type"),
        (attach("te xt/plain"), "is not a media type"),
        (
            mail().body(MimePart::new("", "x")).into(),
            "the Content-Type header is not a media type",
        ),
        (
            mail()
                .body(MimePart::new("a/b", "x").header("content-type", Raw::new("a/b")))
                .into(),
            "given twice",
        ),
        (
            mail()
                .body(MimePart::new("a/b", "x").transfer_encoding(""))
                .into(),
            "Content-Transfer-Encoding header is not",
        ),
        (
            mail()
                .attachment("message/rfc822", "a.eml", "A: b\r\n\r\n\0")
                .into(),
            "line 3 of an attachment has a NUL, and content of its type is not encoded",
        ),
        (
            Message::from(mail()).attach(Attachment::bytes("a", "message/rfc822", "\0")),
            "line 1 of the attachment \"a\" has a NUL",
        ),
        (
            mail()
                .body(MimePart::new("message/rfc822", "QQ==").transfer_encoding("base64"))
                .into(),
            "a part of type \"message/rfc822\" cannot be encoded as \"base64\"",
        ),
        (
            mail()
                .body(
                    MimePart::new("multipart/mixed", vec![MimePart::new("a/b", "")])
                        .transfer_encoding("quoted-printable"),
                )
                .into(),
            "a part of type \"multipart/mixed\" cannot be encoded",
        ),
    ] {
        let error = refused(message);
        assert!(
            error.to_string().contains(says),
            "{error} should say {says:?}"
        );
        assert_eq!(
            (error.kind(), error.phase(), error.hint().is_some()),
            (ErrorKind::Request, Phase::Setup, true),
            "{error}"
        );
    }
}

/// For what the headers do not say.
trait WithEnvelope {
    fn envelope(self) -> Message<'static>;
}

impl WithEnvelope for MessageBuilder<'static> {
    fn envelope(self) -> Message<'static> {
        Message::from(self).envelope(envelope())
    }
}

/// The types of the parts as Python's parser sees them, one a line, with the Content-ID and the
/// size of each.
fn as_python_sees(message: &[u8]) -> Option<String> {
    const SCRIPT: &str = r"
import sys, email, email.policy
message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTP)
def show(part, depth):
    assert not part.defects, (part.get_content_type(), part.defects)
    for name, value in part.items():
        assert not value.defects, (name, value.defects)
    content = b'' if part.is_multipart() else part.get_payload(decode=True)
    print('  ' * depth + part.get_content_type(), part['Content-Transfer-Encoding'], part['Content-ID'], len(content))
    for inner in part.get_payload() if part.is_multipart() else []:
        show(inner, depth + 1)
show(message, 0)
";
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        eprintln!("python3 is not there: its view is not asked for");
        return None;
    };
    python.stdin.take().unwrap().write_all(message).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(message)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

fn assert_parts(message: Message<'static>, expected: &[&str]) -> String {
    let bytes = bytes_of(message);
    if let Some(seen) = as_python_sees(&bytes) {
        assert_eq!(
            seen.lines().collect::<Vec<_>>(),
            expected,
            "{}",
            String::from_utf8_lossy(&bytes)
        );
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn inline_parts_are_related_to_the_html() {
    let png = || Attachment::bytes("logo.png", "image/png", vec![1; 100]);
    let pdf = || {
        Attachment::reader(
            "a.pdf",
            "application/pdf",
            Pieces::new(&noise(200_000), 5000),
        )
    };
    let html = || mail().html_body("<img src=\"cid:logo\">");
    let message = Message::from(
        html()
            .text_body("Text")
            .attachment("a/b", "b", &b"0"[..])
            .inline("image/gif", "own", &b"12"[..]),
    );
    let message = assert_parts(
        message.attach(png().inline("<logo>")).attach(pdf()),
        &[
            "multipart/mixed None None 0",
            "  multipart/alternative None None 0",
            "    text/plain 7bit None 4",
            "    multipart/related None None 0",
            "      text/html 7bit None 20",
            "      image/gif base64 <own> 2",
            "      image/png base64 <logo> 100",
            "  a/b base64 None 1",
            "  application/pdf base64 None 200000",
        ],
    );
    assert!(
        message.contains("Content-Type: multipart/related; type=\"text/html\";"),
        "{message}"
    );
    assert_parts(
        Message::from(html()).attach(png().inline("logo")),
        &[
            "multipart/related None None 0",
            "  text/html 7bit None 20",
            "  image/png base64 <logo> 100",
        ],
    );
    // Without HTML, nothing refers to it.
    assert_parts(
        Message::from(mail().text_body("Text")).attach(png().inline("logo")),
        &[
            "multipart/mixed None None 0",
            "  text/plain 7bit None 4",
            "  image/png base64 <logo> 100",
        ],
    );
    // A body of the caller's making.
    let body = MimePart::new(
        "multipart/alternative",
        vec![
            MimePart::new("text/plain", "Text"),
            MimePart::new("text/html", "HTML"),
        ],
    );
    let message = assert_parts(
        Message::from(mail().body(body))
            .attach(png().inline("logo"))
            .attach(png()),
        &[
            "multipart/mixed None None 0",
            "  multipart/related None None 0",
            "    multipart/alternative None None 0",
            "      text/plain 7bit None 4",
            "      text/html 7bit None 4",
            "    image/png base64 <logo> 100",
            "  image/png base64 None 100",
        ],
    );
    assert!(
        message.contains("type=\"multipart/alternative\""),
        "{message}"
    );
    let binary = binary_bytes_of(Message::from(html()).attach(png().inline("logo")));
    let binary = String::from_utf8_lossy(&binary);
    assert_eq!(
        binary
            .matches("Content-Transfer-Encoding: binary\r\n")
            .count(),
        2,
        "{binary}"
    );
}

#[test]
fn parts_with_their_own_headers_are_not_encoded() {
    let forwarded = "Subject: inner\r\n\r\nHello.\nGoodbye.";
    let eight_bit = "Subject: inner\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e\r";
    let path = in_temporary_folder("forwarded.eml");
    std::fs::write(&path, forwarded).unwrap();
    let text = || Message::from(mail().text_body("Text"));
    let from_file = text().attach(Attachment::file(&path).content_type("message/rfc822"));
    for message in [
        from_file,
        text().attach(Attachment::bytes("a.eml", "Message/RFC822", forwarded)),
        mail()
            .text_body("Text")
            .attachment("message/rfc822", "a.eml", forwarded)
            .into(),
        mail()
            .text_body("Text")
            .attachment("message/rfc822", "a.eml", forwarded.as_bytes())
            .into(),
    ] {
        let message = assert_parts(
            message,
            &[
                "multipart/mixed None None 0",
                "  text/plain 7bit None 4",
                "  message/rfc822 7bit None 0",
                "    text/plain None None 16",
            ],
        );
        assert!(
            message.contains("\r\n\r\nSubject: inner\r\n\r\nHello.\r\nGoodbye.\r\n--"),
            "{message}"
        );
    }
    for message in [
        text().attach(Attachment::bytes("a.eml", "message/rfc822", eight_bit)),
        mail()
            .text_body("Text")
            .attachment("message/rfc822", "a.eml", eight_bit)
            .into(),
        text().attach(Attachment::reader(
            "a.eml",
            "message/rfc822",
            io::Cursor::new(eight_bit),
        )),
    ] {
        let message = assert_parts(
            message,
            &[
                "multipart/mixed 8bit None 0",
                "  text/plain 7bit None 4",
                "  message/rfc822 8bit None 0",
                "    text/plain 8bit None 9",
            ],
        );
        assert!(message.contains("Gr\u{fc}\u{df}e\r\n\r\n--"), "{message}");
    }
    let prepared = run(text()
        .attach(Attachment::reader("a", "message/rfc822", &b""[..]))
        .prepare())
    .unwrap();
    assert_eq!(
        (prepared.size(), prepared.content()),
        (None, Content::Unknown)
    );
    let parts = "--b\r\n\r\nx\r\n--b--\r\n";
    let multipart = text().attach(Attachment::bytes("a", "multipart/mixed; boundary=b", parts));
    assert!(text_of(multipart).contains(parts));
    // These may be encoded (RFC 6532, 3.5), and an unknown file always is.
    for attachment in [
        Attachment::bytes("a", "message/global", forwarded),
        Attachment::file(&path),
    ] {
        assert!(text_of(text().attach(attachment)).contains("base64"));
    }
    let binary = binary_bytes_of(
        text()
            .attach(Attachment::bytes("a.eml", "message/rfc822", eight_bit))
            .attach(Attachment::bytes("a", "a/b", "\r")),
    );
    let binary = String::from_utf8(binary).unwrap();
    assert_eq!(
        binary
            .matches("Content-Transfer-Encoding: binary\r\n")
            .count(),
        3,
        "{binary}"
    );
    assert!(
        binary.contains("Gr\u{fc}\u{df}e\r\r\n--"),
        "it goes as it is: {binary}"
    );
}

#[test]
fn utf8_headers_are_detected_in_any_raw_message() {
    let message = "\u{feff}Subject: Gr\u{fc}\u{df}e\n\nBody\n";
    let path = in_temporary_folder("utf8.eml");
    std::fs::write(&path, message).unwrap();
    let stream = Message::raw_stream(Pieces::new(message.as_bytes(), 3));
    for ready in [Message::raw(message), Message::raw_file(&path), stream] {
        let prepared = run(ready.envelope(envelope()).prepare()).unwrap();
        assert!(prepared.has_utf8_headers());
        let bytes = run(collect(&mut prepared.into_body())).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "Subject: Gr\u{fc}\u{df}e\r\n\r\nBody\r\n"
        );
    }
    let hidden = Message::raw("Bcc: Gr\u{fc}\u{df}e <a@x>\nTo: b@x\n\nBody\n").envelope(envelope());
    assert!(!run(hidden.prepare()).unwrap().has_utf8_headers());
}

#[test]
fn recipients_added_one_by_one_form_one_list() {
    let mut mail = MessageBuilder::new()
        .from("alice@example.org")
        .text_body("Hello.");
    for number in 0..50_000 {
        mail = mail.header(format!("X-{number}"), Raw::new("x"));
    }
    for number in 0..50_000 {
        mail = mail.to(format!("user{number}@example.com"));
    }
    let prepared = run(Message::from(mail).prepare()).unwrap();
    let envelope = prepared.envelope();
    assert_eq!(envelope.recipients().len(), 50_000);
    assert_eq!(
        envelope.recipients()[49_999].as_str(),
        "user49999@example.com"
    );
    let bytes = String::from_utf8(run(collect(&mut prepared.into_body())).unwrap()).unwrap();
    assert_eq!(bytes.matches("To: ").count(), 1);
    assert_eq!(bytes.matches("@example.com>").count(), 50_000);
    let first = bytes.find("<user0@").unwrap();
    assert!(first < bytes.find("<user1@").unwrap(), "in the order given");
}

#[test]
fn too_deeply_nested_parts_are_refused() {
    fn lists(depth: usize) -> Mailboxes<'static> {
        (0..depth).fold("bob@example.com".into(), |inner: Mailboxes<'_>, _| {
            Mailboxes::new_list(vec![inner])
        })
    }
    fn groups(depth: usize) -> Mailboxes<'static> {
        (0..depth).fold("bob@example.com".into(), |inner: Mailboxes<'_>, _| {
            Mailboxes::new_group(Some("g"), vec![inner])
        })
    }
    fn parts(depth: usize) -> MimePart<'static> {
        let part = MimePart::new("text/plain", "Hello.");
        (1..depth).fold(part, |inner, _| {
            MimePart::new("multipart/mixed", vec![inner])
        })
    }
    fn mail() -> MessageBuilder<'static> {
        MessageBuilder::new().from("alice@example.org")
    }
    fn attached(part: MimePart<'static>) -> MessageBuilder<'static> {
        MessageBuilder {
            attachments: Some(vec![part]),
            ..mail().to("bob@example.com").text_body("Hello.")
        }
    }
    for (deepest, too_deep) in [(100, 101), (100, 100_000)] {
        for (fits, refused) in [
            (mail().to(lists(deepest)), mail().to(lists(too_deep))),
            (mail().cc(groups(deepest)), mail().cc(groups(too_deep))),
            (mail().bcc(lists(deepest)), mail().bcc(lists(too_deep))),
            (
                mail()
                    .to("bob@example.com")
                    .header("X-List", lists(deepest)),
                mail()
                    .to("bob@example.com")
                    .header("X-List", lists(too_deep)),
            ),
            (attached(parts(deepest)), attached(parts(too_deep))),
            (
                mail().to("bob@example.com").body(parts(deepest)),
                mail().to("bob@example.com").body(parts(too_deep)),
            ),
            (
                mail()
                    .to("bob@example.com")
                    .body(parts(1).header("X-List", groups(deepest))),
                mail()
                    .to("bob@example.com")
                    .body(parts(1).header("X-List", groups(too_deep))),
            ),
        ] {
            let prepared = run(Message::from(fits).prepare()).unwrap();
            assert_eq!(prepared.envelope().recipients().len(), 1);
            run(collect(&mut prepared.into_body())).unwrap();
            let error = run(Message::from(refused).prepare()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Request);
            assert!(
                error.to_string().contains("nested more than 100 deep"),
                "{error}"
            );
        }
    }
}
