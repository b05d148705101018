//! Raw messages in files that are too large to be read before they are sent: they are checked while
//! they are sent.

use std::path::PathBuf;

use envoi::proto::Content;
use envoi::testing::Server;
use envoi::{Body, Client, Envelope, Error, ErrorKind, LineEnds, Message, Phase, PreparedMessage};
use futures::StreamExt as _;
use support::address;
use tempfile::{NamedTempFile, TempDir};

const HEADER: &[u8] = b"From: me@example.org\r\n\r\n";
const LINE: &[u8] = b"A line of text.\r\n";
/// The number of lines in 17 MiB. Block sizes are no multiple of the length of a line, so blocks
/// end at every position within one.
const LINES: usize = 1024 * 1024;

/// A large message, changed by the caller.
fn text(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut text = [HEADER, &LINE.repeat(LINES)].concat();
    change(&mut text);
    text
}

/// The position of a line of the text, which is this line of the message.
fn position(line: usize) -> usize {
    HEADER.len() + (line - 3) * LINE.len()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, text: &[u8]) -> PathBuf {
        let (_, path) = NamedTempFile::new_in(&self.0).unwrap().keep().unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn message(&self, text: &[u8]) -> Message<'static> {
        let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")]);
        Message::raw_file(self.file(text)).envelope(envelope.unwrap())
    }

    async fn prepared(&self, text: &[u8], line_ends: LineEnds) -> PreparedMessage {
        let message = self.message(text).line_ends(line_ends);
        message.prepare().await.unwrap()
    }
}

/// Reads a body to its end, or to an error.
async fn read(body: &mut Body) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await {
        bytes.extend_from_slice(chunk?.bytes());
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_large_file_is_sent_with_its_last_line_ended_and_its_size_is_known() {
    let folder = Folder::new();
    for (end, missing) in [("", ""), ("without an end", "\r\n"), ("\r", "\n")] {
        let text = text(|text| text.extend_from_slice(end.as_bytes()));
        let prepared = folder.prepared(&text, LineEnds::Normalize).await;
        let sent = [&text, missing.as_bytes()].concat();
        assert_eq!(prepared.size(), Some(sent.len() as u64), "{end:?}");
        assert_eq!(
            (prepared.content(), prepared.longest_line()),
            (Content::Unknown, None)
        );
        let again = prepared.try_clone().expect("a file can be read again");
        assert!(read(&mut prepared.into_body()).await.unwrap() == sent);
        assert!(read(&mut again.into_body()).await.unwrap() == sent);
    }
}

#[tokio::test]
async fn a_fault_in_a_large_file_is_found_with_its_line() {
    let folder = Folder::new();
    let line = LINES / 2;
    let at = position(line);
    type Change = Box<dyn FnOnce(&mut Vec<u8>)>;
    let cases: [(Change, LineEnds, String); 5] = [
        (
            Box::new(move |text| text[at + 3] = 0),
            LineEnds::Normalize,
            format!("line {line} of the message has a NUL"),
        ),
        (
            Box::new(move |text| text[at + LINE.len() - 2] = b' '),
            LineEnds::Refuse,
            format!("line {line} of the message ends with LF alone"),
        ),
        (
            Box::new(move |text| text[at + LINE.len() - 1] = b' '),
            LineEnds::Refuse,
            format!("line {line} of the message ends with CR alone"),
        ),
        (
            Box::new(move |text| text.push(b'\r')),
            LineEnds::Refuse,
            format!("line {} of the message ends with CR alone", LINES + 3),
        ),
        // A bare line end is reported first, as for smaller files.
        (
            Box::new(move |text| {
                text[at] = 0;
                text.push(b'\n');
            }),
            LineEnds::Refuse,
            format!("line {} of the message ends with LF alone", LINES + 3),
        ),
    ];
    for (change, line_ends, expected) in cases {
        let text = text(change);
        let mut body = folder.prepared(&text, line_ends).await.into_body();
        let error = read(&mut body).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Input, Phase::Body)
        );
        assert!(error.message().contains(&expected), "{error}");
        assert!(body.chunk().await.unwrap().is_err());
    }
    // Nothing is refused in the same lines where it may be repaired.
    let repaired = text(|text| text[at + LINE.len() - 2] = b' ');
    let prepared = folder.prepared(&repaired, LineEnds::Normalize).await;
    let line_end = at + LINE.len() - 1;
    let sent = [&repaired[..line_end], b"\r", &repaired[line_end..]].concat();
    assert!(read(&mut prepared.into_body()).await.unwrap() == sent);
}

#[tokio::test]
async fn a_large_file_is_read_before_if_its_line_ends_decide() {
    let folder = Folder::new();
    let bare = text(|text| text.retain(|byte| *byte != b'\r'));
    // Each line gets its CR.
    let size = (bare.len() + LINES + 2) as u64;
    let prepared = folder.prepared(&bare, LineEnds::Normalize).await;
    assert_eq!(
        (prepared.size(), prepared.content(), prepared.longest_line()),
        (Some(size), Content::SevenBit, Some(20))
    );
    let clean = text(|_| {});
    let prepared = folder.prepared(&clean, LineEnds::Keep).await;
    assert_eq!(
        (prepared.size(), prepared.content()),
        (Some(clean.len() as u64), Content::SevenBit)
    );
    let binary = text(|text| text.push(b'\n'));
    let prepared = folder.prepared(&binary, LineEnds::Keep).await;
    assert_eq!(
        (prepared.size(), prepared.content()),
        (Some(binary.len() as u64), Content::Binary)
    );
}

#[tokio::test]
async fn a_fault_in_a_large_file_ends_the_session_before_the_message_is_complete() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let folder = Folder::new();
    let at = position(LINES);
    let faulty = folder.message(&text(|text| text[at] = 0));
    let error = client.send(faulty).await.unwrap_err();
    let expected = format!("line {LINES} of the message has a NUL");
    assert!(error.message().contains(&expected), "{error}");
    assert!(
        error.is_permanent() && !error.outcome_unknown(),
        "{error:?}"
    );

    let receipt = client.send(folder.message(&text(|_| {}))).await.unwrap();
    assert!(receipt.all_accepted());
    assert_eq!(server.messages().len(), 1);
    assert_eq!(server.messages()[0].size, text(|_| {}).len() as u64);
}

/// Without 8BITMIME, it must be known before whether the server takes the message.
#[tokio::test]
async fn an_8_bit_large_file_is_not_sent_to_a_server_without_8bitmime() {
    let server = Server::builder()
        .plaintext()
        .without("8BITMIME")
        .without("SMTPUTF8");
    let server = server.start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let folder = Folder::new();
    let at = position(LINES);
    let eight_bit = text(|text| text[at] = 0xff);
    let error = client.send(folder.message(&eight_bit)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Unsupported, Phase::Mail),
        "{error}"
    );
    let mut connection = client.connect().await.unwrap();
    let messages = futures::stream::iter([eight_bit, text(|_| {})]);
    let messages = messages.map(|text| folder.message(&text));
    let outcomes: Vec<_> = connection.send_all(messages).collect().await;
    let error = outcomes[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(outcomes[1].as_ref().unwrap().all_accepted());
    let received = server.messages();
    assert_eq!(received.len(), 1);
    assert!(
        received[0]
            .parameters
            .iter()
            .all(|parameter| !parameter.starts_with("BODY="))
    );
}
