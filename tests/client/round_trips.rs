//! The number of round trips of a message for each combination of security, login and extensions,
//! counted on the wire and compared with the machine's own count and with docs/protocol.md.
//!
//! `UPDATE_SNAPSHOTS=1` updates the table in docs/protocol.md.

use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use envoi::mail_builder::MessageBuilder;
use envoi::proto::Mechanism;
use envoi::testing::{Builder, Server};
use envoi::{Client, Connection, Endpoint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const BEGIN: &str = "<!-- written by tests/client/round_trips.rs -->\n";
const END: &str = "<!-- end -->\n";

fn hello() -> MessageBuilder<'static> {
    support::hello_to(&["you@example.com", "carl@example.com"])
}

/// Counts on the wire: each time that something comes after something went. The greeting comes
/// after the connection went.
struct Counter {
    stream: TcpStream,
    waits: Arc<AtomicU32>,
    has_spoken: bool,
}

impl Counter {
    async fn connect(server: &Server, waits: &Arc<AtomicU32>) -> Self {
        let stream = TcpStream::connect((server.host(), server.port()))
            .await
            .unwrap();
        Counter {
            stream,
            waits: waits.clone(),
            has_spoken: true,
        }
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.has_spoken |= matches!(written, Poll::Ready(Ok(1..)));
        written
    }
}

impl AsyncRead for Counter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && std::mem::take(&mut self.has_spoken) {
            self.waits.fetch_add(1, Ordering::SeqCst);
        }
        read
    }
}

impl AsyncWrite for Counter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

type Start = fn() -> Builder;

/// What the server offers for the message itself.
const OFFERS: [fn(Builder) -> Builder; 3] = [
    |server| server.without("PIPELINING"),
    |server| server,
    |server| server.offer("CHUNKING"),
];

/// The round trips of a new session and its first message, and those of the second one.
async fn count(server: Builder, handshake: u32) -> (u32, u32) {
    let server = server.start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url()).unwrap();
    let on_wire = Arc::new(AtomicU32::new(0));
    let counted = || on_wire.load(Ordering::SeqCst);
    let stream = Counter::connect(&server, &on_wire).await;
    let mut connection = Connection::from_stream(stream, &endpoint).await.unwrap();
    assert!(connection.send(hello()).await.unwrap().all_accepted());
    let first = connection.round_trips();
    assert_eq!(
        counted(),
        first + handshake,
        "on the wire\n{}",
        connection.transcript()
    );

    let receipt = connection.send(hello()).await.unwrap();
    let second = receipt.round_trips;
    assert_eq!(
        counted(),
        first + handshake + second,
        "on the wire\n{}",
        connection.transcript()
    );

    let alone = Client::new(endpoint).send(hello()).await.unwrap();
    assert_eq!(alone.round_trips, first, "the client's receipt");
    (first, second)
}

#[tokio::test]
async fn round_trips_match_the_table_in_the_docs() {
    let plain = |server: Builder| server.login("alice", "secret").auth_in_clear(true);
    let scram = |server: Builder| {
        server
            .login("alice", "secret")
            .auth_in_clear(true)
            .mechanisms([Mechanism::ScramSha256, Mechanism::ScramSha256Plus])
    };
    let logins: [(&str, &dyn Fn(Builder) -> Builder); 3] = [
        ("no login", &|server| server),
        ("PLAIN", &plain),
        ("SCRAM-SHA-256", &scram),
    ];
    // TLS 1.3 has one round trip of its own.
    let securities: [(&str, Start, u32); 3] = [
        ("plaintext", || Server::builder().plaintext(), 0),
        (
            "TLS from the first byte",
            || Server::builder().implicit_tls(),
            1,
        ),
        ("STARTTLS", || Server::builder().starttls(), 1),
    ];
    let mut table = String::from(BEGIN);
    table += "| | one by one | PIPELINING | CHUNKING |\n|---|---|---|---|\n";
    let mut kept = Vec::new();
    for (security, server, handshake) in securities {
        for (login, with_login) in logins {
            write!(table, "| {security}, {login} ").unwrap();
            for offer in OFFERS {
                let (first, second) = count(offer(with_login(server())), handshake).await;
                write!(table, "| {} ", first + handshake).unwrap();
                kept.push(second);
            }
            table += "|\n";
        }
    }
    // On a connection that is kept, it does not matter how it came about.
    assert!(kept.chunks(3).all(|row| row == &kept[..3]), "{kept:?}");
    writeln!(
        table,
        "| each further message on the same connection | {} | {} | {} |",
        kept[0], kept[1], kept[2]
    )
    .unwrap();
    table += END;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let begin = page.find(BEGIN).expect("the table's place");
    let end = begin + page[begin..].find(END).expect("the table's end") + END.len();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, [&page[..begin], &table, &page[end..]].concat()).unwrap();
    } else {
        assert_eq!(
            &page[begin..end],
            table,
            "if that is meant: UPDATE_SNAPSHOTS=1"
        );
    }
}
