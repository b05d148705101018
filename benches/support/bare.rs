//! A bare loop that writes prepared bytes from memory, with and without TLS: the upper limit of the
//! throughput.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A session with a minimal dialogue.
pub struct Bare {
    stream: BufReader<Box<dyn Stream>>,
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Bare {
    /// Connects, up to the reply to EHLO; with TLS if there is a CA to trust.
    pub fn connect(port: u16, ca_file: Option<&Path>) -> Self {
        Bare::connect_with(port, ca_file.map(trust))
    }

    /// Connects as [`connect`](Self::connect) does, with TLS if there is a configuration.
    pub fn connect_with(port: u16, tls: Option<Arc<ClientConfig>>) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the sink is there");
        stream.set_nodelay(true).expect("a socket option");
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                let tls = ClientConnection::new(config, name).expect("a configuration");
                Box::new(StreamOwned::new(tls, stream))
            }
        };
        let mut bare = Bare {
            stream: BufReader::new(stream),
        };
        bare.answers(1);
        bare.write(b"EHLO bare\r\n");
        bare.answers(1);
        bare
    }

    /// Sends a message by DATA; `wire` ends with the final dot.
    pub fn message(&mut self, wire: &[u8]) {
        for command in [
            "MAIL FROM:<me@example.org>\r\n",
            "RCPT TO:<you@example.com>\r\n",
            "DATA\r\n",
        ] {
            self.write(command.as_bytes());
            self.answers(1);
        }
        self.write(wire);
        self.answers(1);
    }

    /// Writes the bytes, and reads a number of replies.
    pub fn exchange(&mut self, wire: &[u8], replies: usize) {
        self.write(wire);
        self.answers(replies);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream
            .get_mut()
            .write_all(bytes)
            .expect("the sink reads");
        self.stream.get_mut().flush().expect("the sink reads");
    }

    fn answers(&mut self, replies: usize) {
        let mut line = String::new();
        for _ in 0..replies {
            line.clear();
            while line.as_bytes().get(3) != Some(&b' ') {
                line.clear();
                self.stream.read_line(&mut line).expect("the sink answers");
            }
            assert!(line.starts_with(['2', '3']), "the sink refuses: {line}");
        }
    }
}

/// The same over tokio-rustls, for benches with many connections, or of a new one.
pub struct AsyncBare(TlsStream<tokio::net::TcpStream>);

impl AsyncBare {
    /// Connects, up to the reply to EHLO.
    pub async fn connect(port: u16, tls: Arc<ClientConfig>) -> Self {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        let stream = stream.expect("the sink is there");
        stream.set_nodelay(true).expect("a socket option");
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(tls).connect(name, stream);
        let mut bare = AsyncBare(connecting.await.expect("a handshake"));
        bare.exchange(b"", 1).await;
        bare.exchange(b"EHLO bare\r\n", 1).await;
        bare
    }

    /// Writes the bytes, and reads a number of replies.
    pub async fn exchange(&mut self, wire: &[u8], replies: usize) {
        self.0.write_all(wire).await.expect("the sink reads");
        self.0.flush().await.expect("the sink reads");
        let (mut seen, mut text) = (0, Vec::new());
        while seen < replies {
            let mut buffer = [0; 1024];
            let read = self.0.read(&mut buffer).await.expect("the sink answers");
            text.extend_from_slice(&buffer[..read]);
            let whole = text.split_inclusive(|byte| *byte == b'\n');
            let is_last = |line: &&[u8]| line.ends_with(b"\n") && line[3] == b' ';
            seen = whole.filter(is_last).count();
        }
    }
}

/// A TLS client that trusts the sink alone.
pub fn trust(ca_file: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca_file).expect("the sink's CA"))
        .expect("the sink's CA");
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
