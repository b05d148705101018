//! A server that plays its part of a dialogue over a real connection, and holds the client to its
//! own.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::dialogue::Turn;
use crate::text;

/// No turn takes longer, unless the client hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener on the loopback interface that takes one connection and plays the script on it.
pub struct ScriptedServer {
    port: u16,
    task: JoinHandle<Result<(), String>>,
}

impl ScriptedServer {
    pub async fn start(script: Vec<Turn>, tls: Arc<ServerConfig>) -> ScriptedServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
            stream
                .set_nodelay(true)
                .map_err(|error| error.to_string())?;
            // A second connection is refused.
            drop(listener);
            play(Box::new(stream), &script, tls.into()).await
        });
        ScriptedServer { port, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the end of the script.
    ///
    /// # Errors
    ///
    /// What the client did that is not in it.
    pub async fn end(self) -> Result<(), String> {
        self.task.await.unwrap()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn play(
    mut stream: Box<dyn Stream>,
    script: &[Turn],
    tls: TlsAcceptor,
) -> Result<(), String> {
    for (i, turn) in script.iter().enumerate() {
        let explain = |error: String| format!("turn {i}: {error}");
        let result = tokio::time::timeout(PATIENCE, async {
            match turn {
                Turn::Server(bytes) => {
                    let follows_body = i > 0 && matches!(script[i - 1], Turn::Body(_));
                    // What is read here came too early; what comes between this and the write
                    // cannot be told apart.
                    if !follows_body && let Some(Ok(1)) = stream.read(&mut [0]).now_or_never() {
                        return Err(format!(
                            "more was said before the server's {:?}",
                            text(bytes)
                        ));
                    }
                    // Where the client has gone, the next of its turns says so.
                    let _ = stream.write_all(bytes).await;
                    let _ = stream.flush().await;
                    Ok(stream)
                }
                Turn::Client(bytes) => expect(&mut stream, bytes).await.map(|()| stream),
                Turn::Body(size) => {
                    let read = stream.read_exact(&mut vec![0; *size]).await;
                    read.map_err(|error| format!("in the message: {error}"))?;
                    Ok(stream)
                }
                Turn::Tls => match tls.accept(stream).await {
                    Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                    Err(error) => Err(format!("no TLS handshake: {error}")),
                },
                Turn::Close => {
                    // The client may have gone before.
                    let _ = stream.shutdown().await;
                    Ok(Box::new(tokio::io::empty()) as Box<dyn Stream>)
                }
                Turn::WaitClose => {
                    let follows_body = script[..i].iter().any(|turn| matches!(turn, Turn::Body(_)));
                    wait_for_close(&mut stream, follows_body)
                        .await
                        .map(|()| stream)
                }
            }
        });
        stream = result
            .await
            .unwrap_or_else(|_| Err(format!("nothing happened, and it was time for {turn:?}")))
            .map_err(explain)?;
    }
    let result = tokio::time::timeout(PATIENCE, wait_for_close(&mut stream, false)).await;
    result
        .unwrap_or_else(|_| Err("the client does not close".into()))
        .map_err(|error| format!("at the end: {error}"))
}

async fn expect(stream: &mut Box<dyn Stream>, expected: &[u8]) -> Result<(), String> {
    let mut said = Vec::new();
    while said.len() < expected.len() {
        let mut piece = vec![0; expected.len() - said.len()];
        let size = stream.read(&mut piece).await.unwrap_or(0);
        said.extend_from_slice(&piece[..size]);
        if size == 0 {
            return Err(format!(
                "expected {:?}, but the client said {:?} and closed",
                text(expected),
                text(&said)
            ));
        } else if !expected.starts_with(&said) {
            return Err(format!(
                "expected {:?}, but the client said {:?}",
                text(expected),
                text(&said)
            ));
        }
    }
    Ok(())
}

/// Behind a message that was cut short, the rest of it may still be on its way.
async fn wait_for_close(stream: &mut Box<dyn Stream>, rest_of_message: bool) -> Result<(), String> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut bytes).await {
            Ok(0) => return Ok(()),
            Ok(_) if rest_of_message => {}
            Ok(size) => {
                return Err(format!(
                    "the client said {:?} instead of closing",
                    text(&bytes[..size])
                ));
            }
            // With or without TLS's own end, it is closed.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
