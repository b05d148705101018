//! The stage itself: every dialogue on real connections, with a client that knows its lines, and
//! with bad ones.

use std::path::Path;
use std::sync::Arc;

use envoi::testing::Server;
use support::dialogue::{Tls, Turn, parse, read_folder};
use support::scripted_server::ScriptedServer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

fn connector(server: &Server) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(server.tls_config().crypto_provider().clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn perform(script: &[Turn], port: u16, tls: &TlsConnector) {
    let mut stream: Box<dyn Stream> =
        Box::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    for turn in script {
        match turn {
            Turn::Server(expected) => {
                let mut heard = vec![0; expected.len()];
                stream.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, expected);
            }
            Turn::Client(bytes) => stream.write_all(bytes).await.unwrap(),
            Turn::Body(size) => stream.write_all(&vec![b'x'; *size]).await.unwrap(),
            Turn::Tls => {
                let name = ServerName::try_from("localhost").unwrap();
                stream = Box::new(tls.connect(name, stream).await.unwrap());
            }
            Turn::Close => assert_eq!(stream.read(&mut [0]).await.unwrap(), 0),
            Turn::WaitClose => return,
        }
        stream.flush().await.unwrap();
    }
}

#[tokio::test]
async fn the_scripted_server_plays_every_dialogue() {
    let server = Server::start().await.unwrap();
    let tls = connector(&server);
    for (name, dialogue) in
        read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues"))
    {
        assert_eq!(
            dialogue.tls == Tls::Implicit,
            dialogue.script[0] == Turn::Tls,
            "{name}"
        );
        let script = ScriptedServer::start(dialogue.script.clone(), server.tls_config()).await;
        perform(&dialogue.script, script.port(), &tls).await;
        script
            .end()
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn the_scripted_server_reports_a_client_that_deviates() {
    let server = Server::start().await.unwrap();
    let head = "send: from a@b to c@d\nexpect: sent 250\n\n";
    for (lines, said, error) in [
        (
            "C: NOOP",
            "NO",
            "turn 0: expected \"NOOP\\r\\n\", but the client said \"NO\" and closed",
        ),
        (
            "C: NOOP",
            "NO\r\nP",
            "turn 0: expected \"NOOP\\r\\n\", but the client said \"NO\\r\\nP\"",
        ),
        (
            "C: NOOP",
            "NOOP\r\nQUIT\r\n",
            "at the end: the client said \"QUIT\\r\\n\" instead of closing",
        ),
        (
            "C: A\nS: 250 Ok",
            "A\r\nB\r\n",
            "turn 1: more was said before the server's \"250 Ok\\r\\n\"",
        ),
        ("BODY 10", "123456789", "turn 0: in the message: early eof"),
        (
            "WAIT-CLOSE",
            "x",
            "turn 0: the client said \"x\" instead of closing",
        ),
    ] {
        let script = ScriptedServer::start(
            parse(&format!("{head}{lines}\n")).unwrap().script,
            server.tls_config(),
        )
        .await;
        let mut stream = TcpStream::connect(("127.0.0.1", script.port()))
            .await
            .unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(script.end().await.unwrap_err(), error, "{lines}");
    }
}
