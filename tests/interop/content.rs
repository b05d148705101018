//! What arrives: attachments of size, text of any line ending, ready messages, and no Bcc.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoi::{Address, Attachment, Client, Envelope, ErrorKind, LineEnds, Message, Phase, Receipt};

use crate::servers::{ALICE, Tap, both, postfix, someone, with_crlf};
use crate::settings::hello;
use support::noise;

/// Bytes that differ at every place.
fn envelope_to(to: &Address) -> Envelope {
    Envelope::new(Address::new("alice@envoi.test").unwrap(), [to.clone()]).unwrap()
}

async fn send(url: &str, message: impl Into<Message<'_>>) -> Receipt {
    let receipt = Client::from_url(url)
        .unwrap()
        .send(message)
        .await
        .unwrap_or_else(|error| panic!("{url}: {error}"));
    assert!(receipt.all_accepted(), "{receipt:?}");
    receipt
}

/// A message as text, without its boundary, which is random.
fn without_boundary(message: &[u8]) -> String {
    let text = std::str::from_utf8(message).unwrap();
    let boundary = text
        .split("boundary=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    text.replace(boundary, "boundary")
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn an_attachment_of_25_mb_arrives_unchanged() {
    let content = noise(25_000_000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.bin");
    std::fs::write(&path, &content).unwrap();
    let in_to = someone("large");
    // What mail-builder writes, all of it in memory.
    let whole = hello(&in_to).attachment("application/octet-stream", "data.bin", &content[..]);
    let expected = without_boundary(&whole.write_to_vec().unwrap());
    for server in both() {
        let file = tokio::fs::File::open(&path).await.unwrap();
        for attachment in [
            Attachment::file(&path),
            Attachment::reader("data.bin", "application/octet-stream", file),
        ] {
            let to = someone("large");
            let message = Message::from(hello(&in_to))
                .attach(attachment)
                .envelope(envelope_to(&to));
            let receipt = send(&server.starttls(ALICE), message).await;
            let delivered = server.delivered(&to).await;
            assert_eq!(receipt.bytes, delivered.message.len() as u64);
            // No assert_eq: it would print both.
            assert!(
                without_boundary(&delivered.message) == expected,
                "it is not as it was sent"
            );

            // And read by other eyes than those that wrote it.
            let parts = delivered.text().split("\r\n\r\n");
            let encoded = parts
                .max_by_key(|part| part.len())
                .unwrap()
                .split("\r\n--")
                .next()
                .unwrap();
            let decoded = STANDARD.decode(encoded.replace("\r\n", "")).unwrap();
            assert!(decoded == content, "the attachment is another one");
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn text_with_dots_and_any_line_ends_arrives_unchanged() {
    let texts = [
        "one line",
        ".",
        "..",
        ".\n",
        ".\r\n.\r\n",
        "\n.\n\n.\n",
        "\n\n",
        "",
        "LF\n.LF\nand no end",
        "CRLF\r\n..CRLF\r\n",
        "CR\r.\rCR\r",
        "all\r.\n..\r\n...\n\r.\r\r\n.",
        ".leading\n.dots\n..all over\n...\n",
        "Grüße\n.\n",
    ];
    for server in both() {
        let mut connection = Client::from_url(&server.starttls(ALICE))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut sent = Vec::new();
        for text in texts {
            // As a body, which mail-builder encodes where it must.
            let to = someone("text");
            let built = || hello(&to).text_body(text);
            let receipt = connection.send(built()).await.unwrap();
            assert!(receipt.all_accepted());
            let expected = with_crlf(&built().write_to_vec().unwrap());
            sent.push((to, expected, text));

            // As a message that is ready.
            let to = someone("text");
            let ready = format!("Subject: dots\nContent-Type: text/plain; charset=utf-8\n\n{text}");
            let message = Message::raw(ready.clone()).envelope(envelope_to(&to));
            let receipt = connection.send(message).await.unwrap();
            assert!(receipt.all_accepted());
            sent.push((to, with_crlf(ready.as_bytes()), text));
        }
        connection.quit().await;
        for (to, expected, text) in sent {
            let delivered = server.delivered(&to).await;
            assert_eq!(
                delivered.text(),
                String::from_utf8(expected).unwrap(),
                "{text:?}"
            );
        }
    }
}

/// A message as another program wrote it, with much that must not be touched, and hidden
/// recipients.
const READY: &str = "Received: from elsewhere by here; Mon, 1 Jan 2024 00:00:00 +0000\r\n\
    X-Folded: one\r\n two\r\n\tthree  \r\n\
    Bcc: hidden-one@envoi.test,\r\n hidden-two@envoi.test\r\n\
    From: Alice <alice@envoi.test>\r\n\
    subject:   no blank is lost   \r\n\
    Resent-BCC : hidden-three@envoi.test\r\n\
    X-Empty:\r\n\
    \r\n\
    Bcc: this is a line of the text\r\n\
    .\r\n..\r\nFrom here on\r\n\r\n\r\n";

/// The same as it may leave the machine.
fn ready_without_bcc() -> String {
    READY
        .replace(
            "Bcc: hidden-one@envoi.test,\r\n hidden-two@envoi.test\r\n",
            "",
        )
        .replace("Resent-BCC : hidden-three@envoi.test\r\n", "")
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_raw_message_arrives_unchanged_without_bcc() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("message.eml");
    std::fs::write(&path, READY).unwrap();
    for server in both() {
        let mut sent = Vec::new();
        for url in server.settings() {
            let file = tokio::fs::File::open(&path).await.unwrap();
            for message in [
                Message::raw(READY),
                Message::raw_file(&path),
                Message::raw_stream(file),
                Message::raw(READY).line_ends(LineEnds::Refuse),
                Message::raw_stream(Cursor::new(READY)).line_ends(LineEnds::Refuse),
            ] {
                let to = someone("ready");
                let receipt = send(&url, message.envelope(envelope_to(&to))).await;
                sent.push((to, receipt));
            }
        }
        for (to, receipt) in sent {
            let delivered = server.delivered(&to).await;
            assert_eq!(delivered.text(), ready_without_bcc());
            assert_eq!(receipt.bytes, delivered.message.len() as u64);
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_raw_message_of_25_mb_arrives_unchanged() {
    // Lines of 0 to 997 bytes, every third one with a dot in front.
    let mut text = b"Subject: many lines\r\n\r\n".to_vec();
    for number in 0..50_000 {
        let line = if number % 3 == 0 { ".X" } else { "XX" };
        text.extend_from_slice(&line.repeat(499).as_bytes()[..number % 998]);
        text.extend_from_slice(b"\r\n");
    }
    for server in both() {
        for message in [
            Message::raw(text.clone()),
            Message::raw_stream(Cursor::new(text.clone())),
        ] {
            let to = someone("lines");
            let receipt = send(&server.implicit(ALICE), message.envelope(envelope_to(&to))).await;
            assert_eq!(receipt.bytes, text.len() as u64);
            assert!(
                server.delivered(&to).await.message == text,
                "it is not as it was sent"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_stream_with_refused_line_ends_is_not_sent() {
    for server in both() {
        let to = someone("refused-lines");
        let mut connection = Client::from_url(&server.plain())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let stream = Cursor::new("Subject: x\r\n\r\nfine\r\nnot\nfine\r\n");
        let message = Message::raw_stream(stream)
            .line_ends(LineEnds::Refuse)
            .envelope(envelope_to(&to));
        let error = connection.send(message).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Input, Phase::Body),
            "{error}"
        );
        assert!(!error.outcome_unknown());
        // What had gone is not taken for a message: the next one is the only one.
        let _ = send(&server.plain(), hello(&to)).await;
        assert!(server.delivered(&to).await.text().ends_with("Hello.\r\n"));
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_bcc_recipient_gets_the_message_and_stays_hidden() {
    for server in both() {
        let (to, hidden) = (someone("to"), someone("bcc"));
        let receipt = send(&server.starttls(ALICE), hello(&to).bcc(hidden.to_string())).await;
        assert_eq!(receipt.recipients.len(), 2);
        let expected = String::from_utf8(hello(&to).write_to_vec().unwrap()).unwrap();
        for recipient in [&to, &hidden] {
            assert_eq!(server.delivered(recipient).await.text(), expected);
        }

        let (to, hidden) = (someone("to"), someone("bcc"));
        let ready = format!("To: {to}\r\nbCC: {hidden}\r\nSubject: x\r\n\r\ntext\r\n");
        let sender = Address::new("alice@envoi.test").unwrap();
        let envelope = Envelope::new(sender, [to.clone(), hidden.clone()]).unwrap();
        let _ = send(
            &server.starttls(ALICE),
            Message::raw(ready).envelope(envelope),
        )
        .await;
        for recipient in [&to, &hidden] {
            assert_eq!(
                server.delivered(recipient).await.text(),
                format!("To: {to}\r\nSubject: x\r\n\r\ntext\r\n")
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn body_8bitmime_is_sent_if_needed() {
    let eight_bit = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 8bit\r\n\r\nGrüße, 你好\r\n";
    let seven_bit = "Subject: x\r\n\r\nplain\r\n";
    for server in both() {
        for (message, text, says) in [
            (Message::raw(eight_bit), eight_bit, true),
            (Message::raw(seven_bit), seven_bit, false),
            // It is not known beforehand.
            (Message::raw_stream(Cursor::new(eight_bit)), eight_bit, true),
        ] {
            let tap = Tap::on(server.port_25).await;
            let url = server
                .plain()
                .replace(&server.port_25.to_string(), &tap.port.to_string());
            let to = someone("eight-bit");
            let _ = send(&url, message.envelope(envelope_to(&to))).await;
            assert_eq!(server.delivered(&to).await.text(), text);
            let said = tap.log();
            assert_eq!(said.contains(" BODY=8BITMIME"), says, "{said}");
            assert!(!said.contains("SMTPUTF8"), "{said}");
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_non_ascii_address_uses_smtputf8() {
    for server in both() {
        let ascii = someone("utf8");
        let to = Address::new(format!("jörg-{ascii}")).unwrap();
        let tap = Tap::on(server.port_25).await;
        let url = server
            .plain()
            .replace(&server.port_25.to_string(), &tap.port.to_string());
        let _ = send(&url, hello(&to)).await;
        let said = tap.log();
        assert!(said.contains(" SMTPUTF8\r\n"), "{said}");
        let delivered = server.delivered(&to).await;
        assert_eq!(delivered.message, hello(&to).write_to_vec().unwrap());
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_message_over_the_size_limit_is_not_started() {
    let server = postfix();
    let tap = Tap::on(server.port_25).await;
    let url = server
        .plain()
        .replace(&server.port_25.to_string(), &tap.port.to_string());
    let attachment = Attachment::reader("huge", "application/octet-stream", tokio::io::empty())
        .size(3_000_000_000);
    let message = Message::from(hello(&someone("huge"))).attach(attachment);
    let error = Client::from_url(&url)
        .unwrap()
        .send(message)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("at most 3000000000"), "{error}");
    assert!(!tap.log().contains("MAIL"));
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn related_and_forwarded_parts_arrive_unchanged() {
    let forwarded = "Subject: inner\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n";
    let quoted = Address::new("\"a b\"@envoi.test").unwrap();
    for server in both() {
        let to = someone("parts");
        let mail = hello(&to)
            .html_body("<img src=\"cid:logo\">")
            .message_id("<1@envoi.test>");
        let envelope = Envelope::new(quoted.clone(), [to.clone(), quoted.clone()]).unwrap();
        let message = Message::from(mail)
            .attach(Attachment::bytes("logo.png", "image/png", noise(100_000)).inline("<logo>"))
            .attach(Attachment::bytes("inner.eml", "message/rfc822", forwarded))
            .envelope(envelope);
        let receipt = send(&server.plain(), message).await;
        let delivered = server.delivered(&to).await;
        assert_eq!(receipt.bytes, delivered.message.len() as u64);
        let text = delivered.text();
        for part in [
            "Message-ID: <1@envoi.test>\r\n",
            "Content-Type: multipart/related; type=\"text/html\";",
            "Content-ID: <logo>\r\n",
            "Content-Type: message/rfc822\r\n",
            &format!("Content-Transfer-Encoding: 8bit\r\n\r\n{forwarded}\r\n--"),
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_stream_with_utf8_headers_uses_smtputf8() {
    let server = postfix();
    let tap = Tap::on(server.port_25).await;
    let url = server
        .plain()
        .replace(&server.port_25.to_string(), &tap.port.to_string());
    let to = someone("utf8");
    let stream = Cursor::new("\u{feff}bcc: x@envoi.test\nSubject: Grüße\n\nHello.\n");
    let _ = send(&url, Message::raw_stream(stream).envelope(envelope_to(&to))).await;
    assert_eq!(
        server.delivered(&to).await.text(),
        "Subject: Grüße\r\n\r\nHello.\r\n"
    );
    assert!(tap.log().contains(" SMTPUTF8"), "{}", tap.log());
}
