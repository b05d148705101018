//! How fast a large attachment goes out, against the limit: a bare loop that writes the same bytes, prepared in memory, to the
//! same sink. Plaintext and TLS, interleaved, so that a machine whose speed changes changes both.
//!
//! ```text
//! cargo bench --bench throughput                 # 200 MB, 21 rounds
//! cargo bench --bench throughput -- 500 3        # 500 MB, 3 rounds
//! ```
//!
//! The sink is envoi's own test server with `discard`: it reads and looks for the end, and keeps nothing. It runs in a
//! thread of its own; on two cores, both sides share them.
//!
//! Where others use the cores, both sides starve alike and the ratio comes near 1: a ratio says something only beside a bare
//! loop that is as fast as it gets. A few rounds say nothing: single ones lie between half and twice the median.

use std::time::{Duration, Instant};

use envoi::mail_builder::MessageBuilder;
use envoi::testing::{Builder, Server};
use envoi::{Attachment, Client, Message};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let megabytes = numbers.first().copied().unwrap_or(200);
    let rounds = numbers.get(1).copied().unwrap_or(21);

    let sink = runtime(1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("attachment.bin");
    std::fs::write(&file, noise(megabytes * 1_000_000)).expect("the attachment");
    let mail = || {
        let mail =
            MessageBuilder::new().from("me@example.org").to("you@example.com").subject("Large").text_body("Attached.");
        Message::from(mail).attach(Attachment::file(&file))
    };
    let client = runtime(2);
    let wire = client.block_on(bytes_of(mail()));
    println!("attachment {megabytes} MB from a file, {:.1} MB on the wire, {rounds} rounds", wire.len() as f64 / 1e6);

    for (name, builder) in [("plaintext", Server::builder().plaintext()), ("TLS", Server::builder().implicit_tls())] {
        compare(name, builder, &sink, &client, &wire, mail, rounds);
    }
}

/// Each round sends once by envoi and once by the bare loop.
fn compare(
    name: &str,
    builder: Builder,
    sink: &Runtime,
    client: &Runtime,
    wire: &[u8],
    mail: impl Fn() -> Message<'static>,
    rounds: u64,
) {
    let server = sink.block_on(builder.discard().start()).expect("the sink starts");
    let tls = (name == "TLS").then(|| connector(server.ca_pem()));
    let envoi = Client::from_url(&server.url()).expect("the sink's URL");
    let (mut ours, mut limits, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let began = Instant::now();
        let receipt = client.block_on(envoi.send(mail())).expect("the message is taken");
        let our_time = began.elapsed();
        // Message-ID and boundaries are made anew for each, and differ in length by a few bytes.
        assert!(receipt.bytes.abs_diff(wire.len() as u64) < 100);
        let limit = client.block_on(bare(&server, tls.as_ref(), wire));
        // What is compared must have arrived: both times, all of it, protected or not as it is said to be.
        let arrived = server.messages();
        let [.., by_envoi, by_loop] = &arrived[..] else { panic!("the sink took {} messages", arrived.len()) };
        assert_eq!(by_envoi.size, receipt.bytes);
        assert_eq!(by_loop.size, wire.len() as u64);
        assert_eq!([by_envoi.tls.is_some(), by_loop.tls.is_some()], [tls.is_some(); 2]);
        // The first round warms caches up.
        if round > 0 {
            ours.push(rate(wire, our_time));
            limits.push(rate(wire, limit));
            ratios.push(limit.as_secs_f64() / our_time.as_secs_f64());
        }
    }
    println!(
        "{name:9}  envoi {:6.0} MB/s   bare loop {:6.0} MB/s   ratio {:.2} (from {:.2} to {:.2})",
        median(&mut ours),
        median(&mut limits),
        median(&mut ratios),
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

/// The limit: connecting, the least dialogue, and the bytes as they are.
async fn bare(server: &Server, tls: Option<&TlsConnector>, wire: &[u8]) -> Duration {
    let began = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("the sink is there");
    stream.set_nodelay(true).expect("a socket option");
    match tls {
        None => converse(stream, wire).await,
        Some(tls) => {
            let name = ServerName::try_from("localhost").expect("a name");
            converse(tls.connect(name, stream).await.expect("the handshake"), wire).await;
        }
    }
    began.elapsed()
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, wire: &[u8]) {
    let mut stream = BufReader::new(stream);
    answer(&mut stream).await;
    let commands: [&[u8]; 5] = [b"EHLO bench\r\n", b"MAIL FROM:<a@b.c>\r\n", b"RCPT TO:<d@e.f>\r\n", b"DATA\r\n", b""];
    for command in &commands[..4] {
        stream.write_all(command).await.expect("the sink reads");
        stream.flush().await.expect("the sink reads");
        answer(&mut stream).await;
    }
    stream.write_all(wire).await.expect("the sink reads");
    stream.write_all(b".\r\n").await.expect("the sink reads");
    stream.flush().await.expect("the sink reads");
    answer(&mut stream).await;
}

async fn answer(stream: &mut (impl AsyncBufReadExt + Unpin)) {
    let mut line = String::new();
    while line.as_bytes().get(3) != Some(&b' ') {
        line.clear();
        stream.read_line(&mut line).await.expect("the sink answers");
    }
    assert!(line.starts_with(['2', '3']), "the sink refuses: {line}");
}

async fn bytes_of(message: Message<'static>) -> Vec<u8> {
    let (_, mut body) = message.prepare().await.expect("the message is in order");
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await {
        bytes.extend_from_slice(chunk.expect("the file is read").bytes());
    }
    bytes
}

fn connector(ca_pem: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("the sink's CA")).expect("the sink's CA");
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(std::sync::Arc::new(config))
}

fn runtime(threads: usize) -> Runtime {
    RuntimeBuilder::new_multi_thread().worker_threads(threads).enable_all().build().expect("a runtime")
}

/// Bytes without a pattern (xorshift, Marsaglia 2003).
fn noise(size: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..size.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(size as usize).collect()
}

fn rate(wire: &[u8], time: Duration) -> f64 {
    wire.len() as f64 / 1e6 / time.as_secs_f64()
}

/// Sorts the figures, too.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
