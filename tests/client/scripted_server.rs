//! The server that plays dialogues: every dialogue on real connections, with clients that keep to
//! it, and with clients that deviate; and dialogues from transcripts and recorded sessions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use envoi::testing::{Dialogue, Fault, ScriptedServer, Server, Step};
use envoi::{Client, Receipt};
use support::dialogue::{Tls, Turn, read_folder};
use support::hello;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

fn connector(server: &ScriptedServer) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
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
            _ => panic!("{turn:?} says too little for this client"),
        }
        stream.flush().await.unwrap();
    }
}

#[tokio::test]
async fn the_scripted_server_plays_every_dialogue() {
    for (name, dialogue) in
        read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues"))
    {
        assert_eq!(
            dialogue.tls == Tls::Implicit,
            dialogue.script[0] == Turn::Tls,
            "{name}"
        );
        let script: Dialogue = dialogue.text.parse().unwrap();
        // The file that is written is played, too.
        let again: Dialogue = script.to_string().parse().unwrap();
        for script in [script, again] {
            let server = ScriptedServer::start(&script).await.unwrap();
            perform(&dialogue.script, server.port(), &connector(&server)).await;
            server
                .finish()
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// Plays a script to a client that sends this and closes its side. Returns what the server says of
/// it.
async fn said_of(script: &str, sent: &[u8]) -> Result<(), String> {
    let script: Dialogue = script.parse().unwrap();
    let server = ScriptedServer::start(&script).await.unwrap();
    let mut stream = TcpStream::connect((server.host(), server.port()))
        .await
        .unwrap();
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    server.finish().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_scripted_server_reports_a_client_that_deviates() {
    for (script, sent, error) in [
        (
            "C: NOOP",
            "NO",
            "line 1: expected \"NOOP\\r\\n\", but the client sent \"NO\" and closed",
        ),
        (
            "C: NOOP",
            "NO\r\nP",
            "line 1: expected \"NOOP\\r\\n\", but the client sent \"NO\\r\\nP\"",
        ),
        (
            "C: NOOP",
            "NOOP\r\nQUIT\r\n",
            "at the end: the client sent \"QUIT\\r\\n\" instead of closing",
        ),
        (
            "# The second line of a group.\nC: A\nC: B\nS: 250 Ok",
            "A\r\nC\r\n",
            "line 3: expected \"B\\r\\n\", but the client sent \"C\\r\\n\"",
        ),
        (
            "C: A\nS: 250 Ok",
            "A\r\nB\r\n",
            "line 2: before the server's \"250 Ok\\r\\n\", the client sent \"B\\r\\n\"",
        ),
        (
            "BODY 10",
            "123456789",
            "line 1: the client closed after 9 of 10 bytes of the message",
        ),
        (
            "WAIT-CLOSE",
            "x",
            "line 1: the client sent \"x\" instead of closing",
        ),
        (
            "QUIT-OR-CLOSE",
            "NOOP\r\n",
            "line 1: the client sent \"NOOP\\r\\n\" instead of QUIT or the end of \
             the connection",
        ),
        (
            "C: AUTH PLAIN ***",
            "AUTH LOGIN YQ==\r\n",
            "line 1: expected \"AUTH PLAIN ***\\r\\n\", but the client sent \
             \"AUTH LOGIN YQ==\\r\\n\"",
        ),
        (
            "C: MAIL FROM:<a@b> SIZE=*** BODY=8BITMIME",
            "MAIL FROM:<a@b> SIZE=10\r\n",
            "line 1: expected \"MAIL FROM:<a@b> SIZE=*** BODY=8BITMIME\\r\\n\", but the \
             client sent \"MAIL FROM:<a@b> SIZE=10\\r\\n\"",
        ),
        (
            "C: DATA\nMESSAGE",
            "DATA\r\n..\r\n.\n\r\n",
            "line 2: the client closed before the final dot",
        ),
        (
            "C: BDAT *** LAST\nMESSAGE",
            "BDAT 4 LAST\r\n123",
            "line 2: the client closed after 3 of 4 bytes of the message",
        ),
        (
            "MESSAGE",
            "x",
            "line 1: neither DATA nor BDAT is before the message",
        ),
    ] {
        assert_eq!(
            said_of(script, sent.as_bytes()).await.unwrap_err(),
            error,
            "{script}"
        );
    }
}

#[tokio::test]
async fn the_scripted_server_takes_any_text_and_any_message() {
    for (script, sent) in [
        ("C: *** ***", "AUTH PLAIN x\r\n"),
        ("C: ***", "\r\n"),
        ("C: MAIL FROM:<***> SIZE=***", "MAIL FROM:<a@b> SIZE=12\r\n"),
        ("C: DATA\nMESSAGE\nC: QUIT", "DATA\r\n.\r\nQUIT\r\n"),
        (
            "C: DATA\nMESSAGE\nC: QUIT",
            "DATA\r\n..a\r\n..\r\n.\r\nQUIT\r\n",
        ),
        (
            "C: BDAT ***\nMESSAGE\nC: BDAT *** LAST\nMESSAGE\nC: QUIT",
            "BDAT 9\r\nQUIT\r\n.\r\nBDAT 0 LAST\r\nQUIT\r\n",
        ),
        ("BODY 1\nQUIT-OR-CLOSE", "the rest may follow"),
        ("QUIT-OR-CLOSE", "QUIT\r\n"),
        ("QUIT-OR-CLOSE", "RSET\r\nQUIT\r\n"),
        ("QUIT-OR-CLOSE", "rset\r\n"),
        ("QUIT-OR-CLOSE", ""),
    ] {
        assert_eq!(said_of(script, sent.as_bytes()).await, Ok(()), "{script}");
    }
}

/// What a call returned, as far as the server decides it.
fn described(result: &envoi::Result<Receipt>) -> String {
    match result {
        Ok(receipt) => format!("{:?} {:?}", receipt.recipients, receipt.reply),
        Err(error) => format!("{:?} {:?} {:?}", error.kind(), error.phase(), error.reply()),
    }
}

/// Also where a fault ends or delays a session before all pipelined commands are executed.
#[tokio::test]
async fn a_session_with_a_fault_is_recorded_as_a_dialogue_that_plays() {
    let delay = Duration::from_millis(1);
    for fault in [
        Fault::reply(Step::Mail, "421 4.7.0 Too many"),
        Fault::reply(Step::Rcpt, "421 4.7.0 Too many"),
        Fault::reply(Step::Body(5), "552 5.3.4 Too large"),
        Fault::close(Step::Mail),
        Fault::close(Step::Rcpt),
        Fault::close(Step::Body(5)),
        Fault::close(Step::Message),
        Fault::delay(Step::Mail, delay),
        Fault::delay(Step::Rcpt, delay),
        Fault::delay(Step::Data, delay),
    ] {
        for extension in ["CHUNKING", "DSN"] {
            let builder = Server::builder().plaintext().fault(fault.clone());
            let server = builder.offer(extension).start().await.unwrap();
            let client = Client::from_url(&server.url()).unwrap();
            let first = described(&client.send(hello()).await);
            while server.connections()[0].is_open {
                tokio::task::yield_now().await;
            }
            let dialogue = server.connections()[0].dialogue();
            let server = ScriptedServer::start(&dialogue).await.unwrap();
            let client = Client::from_url(server.url()).unwrap();
            let again = described(&client.send(hello()).await);
            assert_eq!(again, first, "{fault:?}, {extension}\n{dialogue}");
            let end = server.finish().await;
            end.unwrap_or_else(|error| panic!("{fault:?}, {extension}: {error}\n{dialogue}"));
        }
    }
}
