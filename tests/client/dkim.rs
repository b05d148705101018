//! DKIM: what a server receives has valid signatures, however the message was given and framed.

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoi::dkim::Canonicalization::{self, Relaxed, Simple};
use envoi::dkim::{DkimAlgorithm, DkimKey, DkimSigner, MessageSigner};
use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, ReceivedMessage, Server};
use envoi::{
    Address, Attachment, Client, Envelope, Error, ErrorKind, LineEnds, Message, PreparedMessage,
};
use proptest::collection::vec;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use support::dkim::{SignatureField, body_form, header_form, recording_key};

fn key(name: &str) -> DkimKey {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dkim/tests/keys");
    DkimKey::from_file(format!("{folder}/{name}.pem")).unwrap()
}

fn rsa() -> DkimSigner {
    DkimSigner::new("example.org", "rsa", key("rsa-2048")).unwrap()
}

fn ed25519() -> DkimSigner {
    DkimSigner::new("example.org", "ed", key("ed25519")).unwrap()
}

fn mail() -> MessageBuilder<'static> {
    MessageBuilder::new()
        .from(("Alice", "alice@example.org"))
        .to(vec!["bob@example.com", "carl@example.com"])
        .bcc("eve@example.net")
        .subject("Is dinner ready?")
        .text_body("Hi.\n\n.We lost the game.  Are you hungry yet? \n\nJoe.\n\n\n")
}

fn envelope() -> Envelope {
    let to = Address::new("bob@example.com").unwrap();
    Envelope::new(Address::new("alice@example.org").unwrap(), [to]).unwrap()
}

fn raw(text: impl Into<bytes::Bytes>) -> Message<'static> {
    Message::raw(text).envelope(envelope())
}

/// The signatures of a message, from the first one on, after checking that each is valid for the
/// signer of its selector.
fn verified(message: &[u8], signers: &[DkimSigner]) -> Vec<SignatureField> {
    let end = message.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (section, body) = message.split_at(end.unwrap() + 2);
    let (section, body) = (std::str::from_utf8(section).unwrap(), &body[2..]);
    let starts: Vec<usize> = section
        .match_indices("DKIM-Signature:")
        .map(|(at, _)| at)
        .collect();
    let fields = starts.iter().map(|start| {
        let rest = &section[*start..];
        let end = rest
            .match_indices("\r\n")
            .find(|(at, _)| !rest[at + 2..].starts_with(' '));
        SignatureField::read(&rest[..end.unwrap().0])
    });
    let fields: Vec<SignatureField> = fields.collect();
    for field in &fields {
        let signer = signers
            .iter()
            .find(|signer| signer.selector() == field.tag("s"))
            .unwrap();
        let form = |name: &str| match name {
            "relaxed" => Relaxed,
            "simple" => Simple,
            name => panic!("{name}"),
        };
        let (header, of_body) = field.tag("c").split_once('/').unwrap();
        let hash: [u8; 32] = Sha256::digest(body_form(form(of_body), body)).into();
        assert!(field.bytes("bh") == hash, "{}", support::text(message));
        let input = header_form(form(header), section, field.tag("h"), &field.unsigned);
        let record = signer.dns_record().unwrap();
        let (_, public) = record.value.split_once("p=").unwrap();
        let public = STANDARD.decode(public).unwrap();
        let signature = field.bytes("b");
        let valid = match signer.key().algorithm() {
            DkimAlgorithm::RsaSha256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
                .verify(input.as_bytes(), &signature),
            _ => {
                UnparsedPublicKey::new(&ED25519, public).verify(&Sha256::digest(input), &signature)
            }
        };
        assert!(valid.is_ok(), "{}", support::text(message));
    }
    fields
}

async fn bytes(prepared: PreparedMessage) -> Vec<u8> {
    let (mut body, mut bytes) = (prepared.into_body(), Vec::new());
    while let Some(chunk) = body.chunk().await {
        bytes.extend_from_slice(chunk.unwrap().bytes());
    }
    bytes
}

async fn send(server: Builder, message: Message<'_>) -> (ReceivedMessage, Vec<u8>) {
    let server = server.start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let receipt = client.send(message).await.unwrap();
    let received = server.next_message().await;
    let bytes = received.read().unwrap();
    assert_eq!(receipt.bytes, bytes.len() as u64);
    (received, bytes)
}

/// By DATA, by BDAT, and over LMTP.
fn servers() -> [Builder; 3] {
    let plain = || Server::builder().plaintext();
    [plain().without("CHUNKING"), plain(), plain().lmtp()]
}

#[tokio::test]
async fn messages_arrive_with_valid_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.mp4");
    std::fs::write(&path, support::noise(200_000)).unwrap();
    let eml = folder.path().join("message.eml");
    let text = "From: a@example.org\nTo : b@example.com\n\tc@example.com\nBcc: hidden@example.com\n\
        Subject:  Gr\u{fc}\u{df}e \n\n.\n..\ntwo  words \t\n \n\n\nno end";
    std::fs::write(&eml, text).unwrap();
    let messages: [&dyn Fn() -> Message<'static>; 6] = [
        &|| Message::from(mail()),
        &|| Message::from(mail()).attach(Attachment::file(&path)),
        // The binary form is not sent.
        &|| {
            Message::from(mail())
                .attach(Attachment::file(&path))
                .binary(true)
        },
        &|| raw(text),
        &|| raw("From: a@x\r\n\r\n"),
        &|| Message::raw_file(&eml).envelope(envelope()),
    ];
    for message in messages {
        let signers = [
            rsa().canonicalization(Simple, Simple),
            ed25519().canonicalization(Simple, Relaxed),
        ];
        let relaxed = DkimSigner::new("example.org", "mixed", key("rsa-2048")).unwrap();
        let signers = [&signers[..], &[relaxed.canonicalization(Relaxed, Simple)]].concat();
        for server in servers() {
            let server = server.offer("BINARYMIME").offer("SMTPUTF8");
            let message = signers
                .iter()
                .fold(message(), |message, signer| message.dkim(signer.clone()));
            let (_, bytes) = send(server, message).await;
            let fields = verified(&bytes, &signers);
            let selectors: Vec<&str> = fields.iter().map(|field| field.tag("s")).collect();
            assert_eq!(selectors, ["rsa", "ed", "mixed"]);
            assert!(!support::text(&bytes).contains("hidden@"));
        }
    }
}

#[tokio::test]
async fn a_prepared_message_is_signed_once_and_its_size_is_known() {
    let signer = ed25519();
    let message = Message::from(mail()).dkim(signer.clone());
    assert_eq!(message.get_dkim().len(), 1);
    let copy = message.try_clone().unwrap();
    assert_eq!(copy.get_dkim().len(), 1);
    let prepared = message.prepare().await.unwrap();
    let size = prepared.size();
    assert!(prepared.headers().starts_with(b"DKIM-Signature: v=1; "));
    assert!(prepared.longest_line().unwrap() <= 76);
    let clone = prepared.try_clone().unwrap();
    let text = bytes(prepared).await;
    assert_eq!(size, Some(text.len() as u64));
    assert_eq!(verified(&text, std::slice::from_ref(&signer)).len(), 1);
    // One that is prepared can be signed again, and is not signed anew by sending it.
    let (_, sent) = send(
        Server::builder().plaintext(),
        Message::from(clone).dkim(rsa()),
    )
    .await;
    assert_eq!(verified(&sent, &[signer, rsa()]).len(), 2);
    assert!(sent.ends_with(&text));
}

/// Its size is that of what leaves, which is not known of an unsigned one.
#[tokio::test]
async fn a_large_file_is_read_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.eml");
    let head = format!("From: a@example.org\r\n\r\n{}\r\n", "x".repeat(70_000));
    let lines = format!("{}\n", "A line of text. ".repeat(40)).repeat(30_000);
    std::fs::write(&path, format!("{head}{lines}")).unwrap();
    let signer = rsa().signed_at(SystemTime::UNIX_EPOCH);
    let message = || {
        let message = Message::raw_file(&path).envelope(envelope());
        message.dkim(signer.clone())
    };
    let prepared = message().prepare().await.unwrap();
    let size = prepared.size();
    let text = bytes(prepared).await;
    assert_eq!(size, Some(text.len() as u64));
    // In the signature, the names of fields follow blanks and colons.
    let start = text
        .windows(7)
        .position(|bytes| bytes == b"\r\nFrom:")
        .unwrap()
        + 2;
    let mut signing = MessageSigner::new([signer.clone()]);
    signing.update(&text[start..]);
    let fields = signing.finish().unwrap();
    assert_eq!(fields, std::str::from_utf8(&text[..start]).unwrap());

    std::fs::write(&path, format!("{head}{lines}\0")).unwrap();
    let error = message().prepare().await.unwrap_err();
    assert!(error.to_string().contains("NUL"), "{error}");
}

#[track_caller]
fn assert_refused(error: &Error, text: &str) {
    assert_eq!(error.kind(), ErrorKind::Request, "{error}");
    assert!(
        error.hint().is_some() && error.to_string().contains(text),
        "{error}"
    );
}

#[tokio::test]
async fn what_cannot_be_signed_is_refused_before_connecting() {
    // Nothing listens there.
    let client = Client::from_url("smtp://127.0.0.1:1?tls=none").unwrap();
    let stream = || std::io::Cursor::new("From: a@x\r\n\r\n");
    let reader = Attachment::reader("a", "text/plain", stream());
    let binary = || raw("From: a@x\r\n\r\na\nb").line_ends(LineEnds::Keep);
    for (message, says) in [
        (
            Message::raw_stream(stream()).envelope(envelope()),
            "read only once",
        ),
        (Message::from(mail()).attach(reader), "read only once"),
        (binary(), "bare line ends"),
        (raw("Subject: x\r\n\r\n"), "without a From header"),
    ] {
        assert_refused(&client.send(message.dkim(rsa())).await.unwrap_err(), says);
    }
    // A copy of what is not binary is signed.
    let kept = raw("From: a@x\r\n\r\na\r\nb").line_ends(LineEnds::Keep);
    assert!(kept.dkim(rsa()).prepare().await.is_ok());
}

#[tokio::test]
async fn times_are_those_of_the_signer() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let signer = ed25519()
        .signed_at(time)
        .expires_after(Duration::from_secs(60));
    let prepared = Message::from(mail())
        .dkim(signer.clone())
        .prepare()
        .await
        .unwrap();
    let fields = verified(&bytes(prepared).await, &[signer]);
    assert_eq!((fields[0].tag("t"), fields[0].tag("x")), ("1000", "1060"));
    let before = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let prepared = Message::from(mail())
        .dkim(ed25519())
        .prepare()
        .await
        .unwrap();
    let fields = verified(&bytes(prepared).await, &[ed25519()]);
    let time: u64 = fields[0].tag("t").parse().unwrap();
    assert!((0..=60).contains(&(time - before.as_secs())));
}

fn any_form() -> impl Strategy<Value = Canonicalization> {
    prop::sample::select(vec![Simple, Relaxed])
}

proptest! {
    /// In any pieces, a message has the signature of its canonical forms.
    #[test]
    fn a_message_in_any_pieces_has_the_signature_of_the_whole(
        fields in vec(
            prop::sample::select(vec![
                "From: a@x\r\n",
                "from :b@x \r\n",
                "To: b@x,\r\n\tc@x\r\n",
                "Subject : \r\n x \t y \r\n \r\n",
                "SUBJECT:\r\n",
                "X: y\r\n",
            ]),
            0..8,
        ),
        text in vec(
            prop_oneof![
                6 => Just(&b"\r\n"[..]),
                4 => Just(&b" "[..]),
                8 => Just(&b"two words"[..]),
                3 => prop::sample::select(vec![&b"\t"[..], b"\r", b"\n", b"  ", b"\0", b"\xff"]),
                1 => Just(&b"QUJDREVGR0g=\r\n"[..]),
            ],
            0..60,
        ),
        header in any_form(),
        body in any_form(),
        lengths in vec(0usize..40, 1..6),
    ) {
        let section = format!("From: z@x\r\n{}", fields.concat());
        let content = text.concat();
        let message = [section.as_bytes(), b"\r\n", &content].concat();
        let signer = DkimSigner::new("example.org", "2026", recording_key())
            .unwrap()
            .canonicalization(header, body);
        let mut signing = MessageSigner::new([signer]);
        let (mut rest, mut lengths) = (&message[..], lengths.iter());
        while !rest.is_empty() {
            let length = lengths.next().copied().unwrap_or(7).min(rest.len());
            let (piece, next) = rest.split_at(length);
            signing.update(piece);
            rest = next;
        }
        let field = SignatureField::read(&signing.finish().unwrap());
        let hash: [u8; 32] = Sha256::digest(body_form(body, &content)).into();
        prop_assert_eq!(field.bytes("bh"), hash);
        let expected = header_form(header, &section, field.tag("h"), &field.unsigned);
        prop_assert_eq!(String::from_utf8(field.bytes("b")).unwrap(), expected);
    }
}
