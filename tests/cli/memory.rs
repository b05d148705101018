//! A gigabyte goes to a slow reader over TLS in a few megabytes of memory: `send` as a process,
//! whose memory the kernel counts.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use envoi::testing::Server;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use support::program;
use support::rss::peak_resident;

const SIZE: u64 = 1 << 30;
/// Over what the program has before it begins to speak.
const ALLOWED: u64 = 16_000_000;
/// The server reads so much, and then waits until nothing more comes.
const BURST: u64 = 64 << 20;

#[tokio::test]
async fn send_streams_a_gigabyte_file_in_constant_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = gigabyte(folder.path());
    let attach = path.to_str().unwrap();
    send_to_a_slow_reader(attach, Stdio::null(), &[]).await;
}

/// It is read twice. The first time is over when the program connects, so all of its memory counts.
#[tokio::test]
async fn send_signs_a_gigabyte_in_constant_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = gigabyte(folder.path());
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dkim/tests/keys");
    let key = format!("example.org,2026,{keys}/rsa-2048.pem");
    let attach = path.to_str().unwrap();
    let peak = send_to_a_slow_reader(attach, Stdio::null(), &["--dkim", &key]).await;
    assert!(peak < 32 << 20, "{peak} bytes were resident");
}

/// A reader inside a message of mail-builder's.
#[tokio::test]
async fn send_streams_a_gigabyte_from_stdin_in_constant_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::open(gigabyte(folder.path())).unwrap();
    send_to_a_slow_reader("-", file.into(), &[]).await;
}

/// It has holes and takes no room.
fn gigabyte(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("gigabyte.bin");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    path
}

/// Returns the peak of the program's memory.
async fn send_to_a_slow_reader(attach: &str, stdin: Stdio, more: &[&str]) -> u64 {
    // It has the certificate; the listening is done here.
    let server = Server::start().await.unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!(
        "smtps://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let began = Instant::now();
    let mut send = Command::new(program::path("send"))
        .args(["--url", &url, "--trust"])
        .arg(server.ca_file())
        .args([
            "--from",
            "alice@example.org",
            "--to",
            "bob@example.com",
            "--subject",
            "A gigabyte",
            "--attach",
            attach,
        ])
        .args(more)
        .stdin(stdin)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let process = send.id().unwrap();

    let (stream, _) = listener.accept().await.unwrap();
    // It waits for TLS: all is loaded, and nothing of the message was touched.
    let idle = peak_resident(process).unwrap();
    let stream = TlsAcceptor::from(server.tls_config())
        .accept(stream)
        .await
        .unwrap();
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    until_data(&mut stream).await;
    let received = read_in_bursts(&mut stream).await;
    // It waits for the final reply.
    let peak = peak_resident(process).unwrap();
    stream.write_all(b"250 2.0.0 Ok\r\n").await.unwrap();
    stream.flush().await.unwrap();
    // QUIT is answered by the end.
    drop(stream);

    assert!(send.wait().await.unwrap().success());
    let lines = SIZE.div_ceil(57);
    assert!(
        received > lines * 78 && received < lines * 78 + 2_000,
        "{received} bytes came"
    );
    eprintln!(
        "--attach {attach}: idle {idle}, {} more at most, {:?}",
        peak - idle,
        began.elapsed()
    );
    assert!(
        peak - idle < ALLOWED,
        "{} bytes more than the {idle} of the idle program",
        peak - idle
    );
    peak
}

/// The dialogue as far as the go-ahead for the message.
async fn until_data(stream: &mut BufReader<TlsStream<TcpStream>>) {
    let mut reply = "220 localhost ESMTP slow\r\n";
    loop {
        stream.write_all(reply.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        if reply.starts_with("354") {
            return;
        }
        let mut command = String::new();
        assert!(
            stream.read_line(&mut command).await.unwrap() > 0,
            "the client closed"
        );
        reply = if command.starts_with("DATA") {
            "354 Go on\r\n"
        } else {
            "250 Ok\r\n"
        };
    }
}

/// Up to the final dot; how many bytes came.
async fn read_in_bursts(stream: &mut BufReader<TlsStream<TcpStream>>) -> u64 {
    let (mut received, mut next_rest) = (0, BURST);
    let mut block = vec![0; 64 << 10];
    let mut end = Vec::new();
    while !end.ends_with(b"\r\n.\r\n") {
        let count = stream.read(&mut block).await.unwrap();
        assert!(count > 0, "the client closed after {received} bytes");
        received += count as u64;
        end.extend_from_slice(&block[..count]);
        end.drain(..end.len().saturating_sub(5));
        // What is encoded is more than the file: behind these bytes, there is more to come.
        if received >= next_rest && received < SIZE {
            stand_still(stream.get_ref().get_ref().0).await;
            next_rest = received + BURST;
        }
    }
    received
}

/// Until all buffers on the way are full, and the client has to wait.
async fn stand_still(stream: &TcpStream) {
    let mut unread = 0;
    loop {
        let before = std::mem::replace(&mut unread, rustix::io::ioctl_fionread(stream).unwrap());
        if unread > 0 && unread == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
