//! `DataWriter` as an `AsyncWrite`.

use std::time::Duration;

use envoi::testing::Server;
use envoi::tls::Security;
use envoi::{Address, Client, Connection, DataWriter, Endpoint, Error, ErrorKind, Phase, Timeouts};
use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt};
use tokio::time::Instant;

/// A message for `you@example.com` is asked for.
async fn writer_for<'c>(connection: &'c mut Connection) -> DataWriter<'c> {
    let sender = connection.mail(Address::new("me@example.org").unwrap());
    assert!(sender.await.unwrap().is_positive());
    let recipient = connection.rcpt(Address::new("you@example.com").unwrap());
    assert!(recipient.await.unwrap().is_positive());
    connection.data().await.unwrap()
}

#[tokio::test]
async fn a_data_writer_takes_what_is_copied_into_it() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let mut connection = client.connect().await.unwrap();
    let mut message = b"Subject: copied\r\n\r\n".to_vec();
    while message.len() < 1024 * 1024 {
        message.extend_from_slice(b".a line that begins with a dot\r\n");
    }
    for messages in 0..2 {
        let mut writer = writer_for(&mut connection).await;
        let copied = tokio::io::copy(&mut &message[..], &mut writer)
            .await
            .unwrap();
        assert_eq!(copied, message.len() as u64);
        // Neither ends the message, and the two ways to write go together.
        writer.flush().await.unwrap();
        writer.shutdown().await.unwrap();
        assert_eq!(server.messages().len(), messages);
        DataWriter::write(&mut writer, "the end\r\n").await.unwrap();
        writer.finish().await.unwrap();
        let received = server.next_message().await.read().unwrap();
        assert_eq!(received, [&message[..], b"the end\r\n"].concat());
    }
    connection.quit().await;
}

#[tokio::test]
async fn a_failed_copy_into_a_data_writer_has_the_error() {
    let (client, mut server) = tokio::io::duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        for reply in [
            "220 mail.example.org",
            "250 mail.example.org",
            "250 Ok",
            "250 Ok",
            "354 Go ahead",
        ] {
            server
                .write_all(format!("{reply}\r\n").as_bytes())
                .await
                .unwrap();
            let _command = server.read(&mut buffer).await.unwrap();
        }
        // Some of the message was read; the rest is not wanted.
        let refusal = b"552 5.3.4 Message too big\r\n";
        server.write_all(refusal).await.unwrap();
        while server.read(&mut buffer).await.unwrap() > 0 {}
    });
    let endpoint = Endpoint::new("mail.example.org").security(Security::None);
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let mut writer = writer_for(&mut connection).await;
    let mut zeros = tokio::io::repeat(b'0').take(64 * 1024 * 1024);
    let error = tokio::io::copy(&mut zeros, &mut writer).await.unwrap_err();
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Body),
        "{error}"
    );
    assert_eq!(error.reply().unwrap().code(), 552);
    // Every later call has the same reason.
    let error = writer.write_all(b"more").await.unwrap_err();
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(error.reply().unwrap().code(), 552);
    let error = DataWriter::write(&mut writer, "more").await.unwrap_err();
    assert_eq!(error.reply().unwrap().code(), 552);
    let error = writer.finish().await.unwrap_err();
    assert_eq!(error.reply().unwrap().code(), 552);
    drop(connection);
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_copy_into_a_data_writer_has_the_time_limit_of_the_body() {
    let (client, mut server) = tokio::io::duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let mut buffer = vec![0; 1024];
        for reply in [
            "220 mail.example.org",
            "250 mail.example.org",
            "250 Ok",
            "250 Ok",
            "354 Go ahead",
        ] {
            server
                .write_all(format!("{reply}\r\n").as_bytes())
                .await
                .unwrap();
            if !reply.starts_with("354") {
                let _command = server.read(&mut buffer).await.unwrap();
            }
        }
        // Nothing of the message is read.
        server
    });
    let mut endpoint = Endpoint::new("mail.example.org").security(Security::None);
    endpoint = endpoint.timeouts(Timeouts::uniform(Duration::from_secs(20)));
    let mut connection = Connection::from_stream(client, &endpoint).await.unwrap();
    let mut writer = writer_for(&mut connection).await;
    let started = Instant::now();
    let mut zeros = tokio::io::repeat(b'0').take(64 * 1024 * 1024);
    let error = tokio::io::copy(&mut zeros, &mut writer).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    assert!(started.elapsed() < Duration::from_secs(21));
    // A copy that was dropped while it waited does not keep the connection busy for good.
    assert!(writer.finish().await.is_err());
    drop(connection);
    let _server = serving.await.unwrap();
}

#[tokio::test]
async fn a_dropped_write_into_a_data_writer_loses_nothing_it_reported() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let mut connection = client.connect().await.unwrap();
    let mut writer = writer_for(&mut connection).await;
    let message = [
        b"Subject: cut\r\n\r\n".to_vec(),
        vec![b'x'; 8 * 1024 * 1024],
    ]
    .concat();
    let mut written = 0;
    let mut drops = 0;
    while written < message.len() {
        let piece = &message[written..message.len().min(written + 100_000)];
        match AsyncWriteExt::write(&mut writer, piece).now_or_never() {
            Some(result) => written += result.unwrap(),
            // The future was dropped while it waited.
            None => {
                drops += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    writer.write_all(b"\r\n").await.unwrap();
    writer.finish().await.unwrap();
    assert!(drops > 0);
    let received = server.next_message().await.read().unwrap();
    assert_eq!(received, [&message[..], b"\r\n"].concat());
    connection.quit().await;
}
