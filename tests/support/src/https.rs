//! An HTTPS server for policies of MTA-STS. It answers each request with the same bytes.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// What the server does after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ends TLS and closes the connection.
    Close,
    /// It closes the connection without ending TLS.
    Cut,
    /// It keeps the connection open.
    Hang,
}

/// A running server, which ends when it is dropped.
pub struct HttpsServer {
    /// The address that it listens on.
    pub address: SocketAddr,
    answer: Arc<Mutex<(Vec<u8>, End)>>,
    requests: Arc<Mutex<Vec<String>>>,
    peers: Arc<Mutex<Vec<IpAddr>>>,
    task: JoinHandle<()>,
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A response with these header lines and this body, whose length it states.
pub fn response(status: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A policy with the right media type.
pub fn policy(text: &str) -> Vec<u8> {
    response("200 OK", &["Content-Type: text/plain; charset=utf-8"], text)
}

impl HttpsServer {
    /// Listens on this address, with this certificate.
    pub async fn start(listen: SocketAddr, config: ServerConfig, answer: Vec<u8>) -> HttpsServer {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((answer, End::Close)));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let peers = Arc::<Mutex<Vec<IpAddr>>>::default();
        let (answers, heard, seen) = (answer.clone(), requests.clone(), peers.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                seen.lock().unwrap().push(peer.ip());
                let (acceptor, answers, heard) = (acceptor.clone(), answers.clone(), heard.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    heard.lock().unwrap().push(request);
                    let (answer, end) = answers.lock().unwrap().clone();
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.flush().await;
                    match end {
                        End::Close => {
                            let _ = stream.shutdown().await;
                        }
                        End::Cut => {}
                        End::Hang => {
                            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                        }
                    }
                });
            }
        });
        HttpsServer {
            address,
            answer,
            requests,
            peers,
            task,
        }
    }

    /// Changes the answer to later requests.
    pub fn answer(&self, answer: Vec<u8>, end: End) {
        *self.answer.lock().unwrap() = (answer, end);
    }

    /// The addresses from which it was connected to so far.
    pub fn peers(&self) -> Vec<IpAddr> {
        self.peers.lock().unwrap().clone()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}
