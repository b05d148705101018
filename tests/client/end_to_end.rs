//! From the public API to a server: bodies and attachments of the sizes around what buffers hold.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;
use envoi::{Attachment, Connection, Endpoint, Envelope, Message};

use support::address;
use support::decoder::normalised;

const SIZES: [usize; 5] = [0, 1, 32_767, 32_768, 32_769];

async fn server_and_connection() -> (Server, Connection) {
    let server = Server::builder().plaintext().start().await.unwrap();
    let connection = Connection::connect(&Endpoint::from_url(&server.url()).unwrap())
        .await
        .unwrap();
    (server, connection)
}

#[tokio::test]
async fn bodies_arrive_as_sent() {
    let (server, mut connection) = server_and_connection().await;
    let envelope = Envelope::new(
        Some(address("me@example.org")),
        [address("you@example.com")],
    )
    .unwrap();
    for size in SIZES {
        let lines = b"dots\n.\n..\r\n.x\n"
            .iter()
            .copied()
            .cycle()
            .take(size)
            .collect::<Vec<u8>>();
        for body in [lines, vec![b'.'; size]] {
            let text = [&b"Subject: sizes\r\n\r\n"[..], &body].concat();
            let stream = std::io::Cursor::new(text.clone());
            for message in [Message::raw(text.clone()), Message::raw_stream(stream)] {
                let receipt = connection
                    .send(message.envelope(envelope.clone()))
                    .await
                    .unwrap();
                let captured = server.next_message().await;
                assert!(!captured.bare_line_ends);
                assert!(
                    captured.read().unwrap() == normalised(&text),
                    "a body of {size} bytes"
                );
                assert_eq!(captured.size, receipt.bytes);
            }
        }
    }
}

#[tokio::test]
async fn attachments_arrive_as_sent() {
    let (server, mut connection) = server_and_connection().await;
    let folder = tempfile::tempdir().unwrap();
    for size in SIZES {
        let content: Vec<u8> = (0..size).map(|n| (n * 7 + n / 256) as u8).collect();
        let path = folder.path().join(format!("{size}.bin"));
        std::fs::write(&path, &content).unwrap();
        let stream = std::io::Cursor::new(content.clone());
        for attachment in [
            Attachment::bytes("memory.bin", "application/octet-stream", content.clone()),
            Attachment::file(&path),
            Attachment::reader("stream.bin", "application/octet-stream", stream),
        ] {
            let mail = MessageBuilder::new()
                .from("me@example.org")
                .to("you@example.com")
                .text_body("See attachment.");
            let receipt = connection
                .send(Message::from(mail).attach(attachment))
                .await
                .unwrap();
            let captured = server.next_message().await;
            assert!(!captured.bare_line_ends);
            assert_eq!(captured.size, receipt.bytes);
            assert!(
                attached(&captured.read().unwrap()) == content,
                "an attachment of {size} bytes"
            );
        }
    }
}

/// The one attachment of a message.
fn attached(message: &[u8]) -> Vec<u8> {
    let message = std::str::from_utf8(message).unwrap();
    let (_, part) = message
        .split_once("Content-Disposition: attachment")
        .expect("there is an attachment");
    let (_, content) = part.split_once("\r\n\r\n").expect("its headers end");
    let (content, _) = content.split_once("\r\n--").expect("a boundary follows");
    BASE64
        .decode(content.replace("\r\n", ""))
        .expect("it is base64")
}
