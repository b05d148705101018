//! The same work for each client, as its documentation recommends.

use std::future::ready;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use mail_builder::MessageBuilder;
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support;

/// The server.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub port: u16,
    /// TLS from the first byte, with this CA; `None` for plaintext.
    pub ca_file: Option<&'a Path>,
}

/// Sends one large message: an attachment from a file, or a raw message from a file.
pub async fn large(who: &str, target: Target<'_>, is_ready: bool, file: &Path) {
    match who {
        "envoi" => large_by_envoi(target, is_ready, file).await,
        "lettre" => large_by_lettre(target, is_ready, file).await,
        "mail-send" => large_by_mail_send(target, is_ready, file).await,
        "async-smtp" => large_by_async_smtp(target, is_ready, file).await,
        who => panic!("no client is called {who}"),
    }
}

/// Sends small messages on one connection for some time, each after the reply to the previous one.
/// Connecting is not measured.
pub fn small(who: &str, target: Target<'_>, time: Duration) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match who {
        "envoi" => {
            let mut connection = runtime
                .block_on(envoi(target).connect())
                .expect("the sink is there");
            let send = async || {
                let receipt = connection.send(note()).await.expect("the message is taken");
                assert!(receipt.all_accepted());
            };
            support::report(|| runtime.block_on(again_and_again(time, send)));
            runtime.block_on(connection.quit());
        }
        "envoi-pool" => {
            let pool = envoi(target).pool(10);
            drop(runtime.block_on(pool.get()).expect("the sink is there"));
            let send = async || {
                let receipt = pool.send(note()).await.expect("the message is taken");
                assert!(receipt.all_accepted());
            };
            support::report(|| runtime.block_on(again_and_again(time, send)));
            runtime.block_on(pool.close());
        }
        "envoi-stream" => {
            let mut connection = runtime
                .block_on(envoi(target).connect())
                .expect("the sink is there");
            support::report(|| {
                let began = Instant::now();
                let messages = futures::stream::repeat_with(|| envoi::Message::from(note()));
                let messages = messages.take_while(|_| std::future::ready(began.elapsed() < time));
                let outcomes = connection
                    .send_all(messages)
                    .map(|outcome| outcome.expect("the message is taken"));
                let receipts = runtime.block_on(
                    outcomes
                        .filter(|receipt| ready(receipt.all_accepted()))
                        .count(),
                );
                receipts as u64
            });
            runtime.block_on(connection.quit());
        }
        // A kept connection, without the NOOP that the pool of its transport sends before each
        // message.
        "lettre" => {
            use lettre::transport::smtp::client::AsyncSmtpConnection;
            let (server, hello) = (("localhost", target.port), Default::default());
            let connecting =
                AsyncSmtpConnection::connect_tokio1(server, None, &hello, lettre_tls(target), None);
            let mut connection = runtime.block_on(connecting).expect("the sink is there");
            let send = async || {
                let message = lettre_note();
                let sent = connection
                    .send(message.envelope(), &message.formatted())
                    .await;
                sent.expect("the message is taken");
            };
            support::report(|| runtime.block_on(again_and_again(time, send)));
            runtime
                .block_on(connection.quit())
                .expect("the sink says goodbye");
        }
        "lettre-pool" => {
            use lettre::AsyncTransport as _;
            // The pool spawns a task.
            let _entered = runtime.enter();
            let transport = lettre(target);
            assert!(
                runtime
                    .block_on(transport.test_connection())
                    .expect("the sink is there")
            );
            let send = async || {
                transport
                    .send(lettre_note())
                    .await
                    .expect("the message is taken");
            };
            support::report(|| runtime.block_on(again_and_again(time, send)));
            runtime.block_on(transport.shutdown());
        }
        "mail-send" => {
            let mut client = runtime
                .block_on(mail_send(target).connect_plain())
                .expect("the sink is there");
            let send = async || {
                client.send(note()).await.expect("the message is taken");
            };
            support::report(|| runtime.block_on(again_and_again(time, send)));
            runtime
                .block_on(client.quit())
                .expect("the sink says goodbye");
        }
        "async-smtp" => {
            let mut transport = runtime.block_on(async {
                let stream = BufStream::new(connected(target).await);
                async_smtp::SmtpTransport::new(async_smtp::SmtpClient::new(), stream)
                    .await
                    .expect("the sink is there")
            });
            let send = async || {
                let email = sendable(note().write_to_vec().expect("a message"));
                transport.send(email).await.expect("the message is taken");
            };
            support::report(|| runtime.block_on(again_and_again(time, send)));
            runtime
                .block_on(transport.quit())
                .expect("the sink says goodbye");
        }
        who => panic!("no client is called {who}"),
    }
}

/// Returns the number of repetitions.
async fn again_and_again(time: Duration, mut send: impl AsyncFnMut()) -> u64 {
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        send().await;
        count += 1;
    }
    count
}

const FROM: &str = "me@example.org";
const TO: &str = "you@example.com";

fn head() -> MessageBuilder<'static> {
    MessageBuilder::new()
        .from(FROM)
        .to(TO)
        .subject("A benchmark")
}

fn text() -> String {
    "A short line of text.\r\n".repeat(43)
}

fn note() -> MessageBuilder<'static> {
    head().text_body(text())
}

// ---- envoi ----

fn envoi(target: Target) -> envoi::Client {
    let url = match target.ca_file {
        None => format!("smtp://localhost:{}?tls=none", target.port),
        Some(ca_file) => format!(
            "smtps://localhost:{}?trust={}",
            target.port,
            ca_file.display()
        ),
    };
    envoi::Client::from_url(&url).expect("the sink's URL")
}

async fn large_by_envoi(target: Target<'_>, is_ready: bool, file: &Path) {
    use envoi::{Address, Attachment, Envelope, Message};
    let message = if is_ready {
        let address = |text| Address::new(text).expect("an address");
        Message::raw_file(file)
            .envelope(Envelope::new(address(FROM), [address(TO)]).expect("an envelope"))
    } else {
        Message::from(head().text_body("Attached.")).attach(Attachment::file(file))
    };
    let receipt = envoi(target)
        .send(message)
        .await
        .expect("the message is taken");
    assert!(receipt.all_accepted());
}

// ---- lettre ----

type Lettre = lettre::AsyncSmtpTransport<lettre::Tokio1Executor>;

fn lettre(target: Target) -> Lettre {
    let tls = lettre_tls(target).map_or(Tls::None, Tls::Wrapper);
    // "dangerous" because it does not require TLS.
    Lettre::builder_dangerous("localhost")
        .port(target.port)
        .tls(tls)
        .timeout(None)
        .build()
}

fn lettre_tls(target: Target) -> Option<TlsParameters> {
    let pem = std::fs::read(target.ca_file?).expect("the sink's CA");
    let ca = Certificate::from_pem(&pem).expect("the sink's CA");
    let parameters = TlsParameters::builder("localhost".into())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(ca);
    Some(parameters.build().expect("parameters"))
}

fn lettre_head() -> lettre::message::MessageBuilder {
    let mailbox = |address: &str| address.parse().expect("an address");
    lettre::Message::builder()
        .from(mailbox(FROM))
        .to(mailbox(TO))
        .subject("A benchmark")
}

fn lettre_note() -> lettre::Message {
    lettre_head()
        .singlepart(lettre::message::SinglePart::plain(text()))
        .expect("a message")
}

async fn large_by_lettre(target: Target<'_>, is_ready: bool, file: &Path) {
    use lettre::AsyncTransport as _;
    use lettre::message::header::{ContentTransferEncoding, ContentType};
    use lettre::message::{Attachment, Body, MultiPart, SinglePart};
    let bytes = tokio::fs::read(file).await.expect("the file");
    let transport = lettre(target);
    if is_ready {
        let address = |text: &str| text.parse().expect("an address");
        let envelope = lettre::address::Envelope::new(Some(address(FROM)), vec![address(TO)])
            .expect("an envelope");
        transport
            .send_raw(&envelope, &bytes)
            .await
            .expect("the message is taken");
        return;
    }
    // The encoding is given, so that lettre does not search for the best one.
    let Ok(body) = Body::new_with_encoding(bytes, ContentTransferEncoding::Base64) else {
        panic!("base64 is for all")
    };
    let octets = ContentType::parse("application/octet-stream").expect("a content type");
    let parts = MultiPart::mixed()
        .singlepart(SinglePart::plain("Attached.".to_owned()))
        .singlepart(Attachment::new("attachment.bin".into()).body(body, octets));
    transport
        .send(lettre_head().multipart(parts).expect("a message"))
        .await
        .expect("the message is taken");
}

// ---- mail-send ----

fn mail_send(target: Target) -> mail_send::SmtpClientBuilder<&'static str> {
    let connector = match target.ca_file {
        Some(ca_file) => TlsConnector::from(support::bare::trust(ca_file)),
        None => {
            return mail_send::SmtpClientBuilder::new("localhost", target.port)
                .expect("a TLS configuration");
        }
    };
    mail_send::SmtpClientBuilder::new_with_tls_connector("localhost", target.port, connector)
        .implicit_tls(true)
}

async fn large_by_mail_send(target: Target<'_>, is_ready: bool, file: &Path) {
    use mail_send::smtp::message::{IntoMessage as _, Message};
    let bytes = tokio::fs::read(file).await.expect("the file");
    let message = if is_ready {
        Message::new(FROM, [TO], bytes)
    } else {
        let attached = head().text_body("Attached.").attachment(
            "application/octet-stream",
            "attachment.bin",
            bytes,
        );
        attached.into_message().expect("a message")
    };
    if target.ca_file.is_some() {
        let mut client = mail_send(target)
            .connect()
            .await
            .expect("the sink is there");
        client.send(message).await.expect("the message is taken");
        client.quit().await.expect("the sink says goodbye");
    } else {
        let mut client = mail_send(target)
            .connect_plain()
            .await
            .expect("the sink is there");
        client.send(message).await.expect("the message is taken");
        client.quit().await.expect("the sink says goodbye");
    }
}

// ---- async-smtp ----

/// async-smtp takes a connected stream. It writes each command separately, which needs
/// TCP_NODELAY.
async fn connected(target: Target<'_>) -> TcpStream {
    let stream = TcpStream::connect(("localhost", target.port))
        .await
        .expect("the sink is there");
    stream.set_nodelay(true).expect("a socket option");
    stream
}

fn sendable(message: Vec<u8>) -> async_smtp::SendableEmail {
    use async_smtp::{EmailAddress, Envelope, SendableEmail};
    let address = |text: &str| EmailAddress::new(text.into()).expect("an address");
    SendableEmail::new(
        Envelope::new(Some(address(FROM)), vec![address(TO)]).expect("an envelope"),
        message,
    )
}

async fn large_by_async_smtp(target: Target<'_>, is_ready: bool, file: &Path) {
    let bytes = tokio::fs::read(file).await.expect("the file");
    let message = if is_ready {
        bytes
    } else {
        // async-smtp builds no messages.
        let attached = head().text_body("Attached.").attachment(
            "application/octet-stream",
            "attachment.bin",
            bytes,
        );
        attached.write_to_vec().expect("a message")
    };
    let stream = connected(target).await;
    match target.ca_file {
        None => async_smtp_sends(stream, message).await,
        Some(ca_file) => {
            let name = ServerName::try_from("localhost").expect("a name");
            let connector = TlsConnector::from(support::bare::trust(ca_file));
            async_smtp_sends(
                connector.connect(name, stream).await.expect("a handshake"),
                message,
            )
            .await;
        }
    }
}

async fn async_smtp_sends(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    message: Vec<u8>,
) {
    let transport =
        async_smtp::SmtpTransport::new(async_smtp::SmtpClient::new(), BufStream::new(stream)).await;
    let mut transport = transport.expect("the sink is there");
    transport
        .send(sendable(message))
        .await
        .expect("the message is taken");
    transport.quit().await.expect("the sink says goodbye");
}
