//! The servers at the other end: scripted ones in plaintext and inside TLS, `openssl s_server`, and
//! such that speak no SMTP.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::case::{Party, World};

/// What a script answers to each command that begins so. `GREETING`, `TLS` (the first bytes of a
/// handshake) and `BODY` (the first bytes of a message) are commands, too, and `.` is the end of
/// the message.
pub type Script = &'static [(&'static str, &'static str)];

/// Answers that are none.
pub const SILENCE: &str = "(silence)";
pub const CLOSE: &str = "(close)";
pub const RESET: &str = "(reset)";

pub enum Server {
    /// In plaintext, with STARTTLS if the script offers it.
    Plain(Script),
    /// TLS from the first byte.
    Implicit(Script),
    /// TLS after STARTTLS, with this configuration.
    StartTls(fn(&World) -> ServerConfig, Script),
    /// Says this, whatever it hears, and closes once the client has.
    Says(&'static str),
    /// Waits for the client's first bytes, answers them so, and closes.
    Answers(&'static [u8]),
    /// Answers what it hears with one of these after the other, and is silent then.
    Replies(&'static [&'static [u8]]),
    /// `openssl s_server` with these options.
    Openssl(&'static [&'static str]),
    /// Nothing listens.
    NotListening,
    /// So many wait to be accepted that no more can connect.
    Full,
}

pub struct Running {
    pub port: u16,
    /// All that scripted servers heard, connection by connection.
    pub heard: Heard,
    task: Option<JoinHandle<()>>,
    process: Option<(Child, ChildStdin)>,
}

/// The commands of each connection.
pub type Heard = Arc<Mutex<Vec<Vec<String>>>>;

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if let Some((process, _)) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub async fn start(server: &Server, world: &World) -> Running {
    if let Server::Openssl(options) = server {
        return openssl(world, options);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let good = |world: &World| config(&[&world.good()]);
    let heard = Heard::default();
    let task = match *server {
        Server::NotListening | Server::Openssl(_) => {
            drop(listener);
            None
        }
        Server::Full => return full().await,
        Server::Plain(script) => Some(serve(listener, script, good(world), false, &heard)),
        Server::Implicit(script) => Some(serve(listener, script, good(world), true, &heard)),
        Server::StartTls(config, script) => {
            Some(serve(listener, script, config(world), false, &heard))
        }
        Server::Says(text) => Some(tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        })),
        Server::Replies(replies) => Some(tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for reply in replies {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(reply).await;
            }
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        })),
        Server::Answers(bytes) => Some(tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(bytes).await;
        })),
    };
    Running {
        port,
        heard,
        task,
        process: None,
    }
}

/// A server with this chain: the certificate of the first, and the others above it.
pub fn config(chain: &[&Party]) -> ServerConfig {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(chain[0].key.serialize_der()));
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.iter().map(|party| party.der.clone()).collect(), key)
        .unwrap()
}

fn serve(
    listener: TcpListener,
    script: Script,
    config: ServerConfig,
    implicit: bool,
    heard: &Heard,
) -> JoinHandle<()> {
    let heard = heard.clone();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            let number = {
                let mut heard = heard.lock().unwrap();
                heard.push(Vec::new());
                heard.len() - 1
            };
            let heard = heard.clone();
            let log = move |line: &str| heard.lock().unwrap()[number].push(line.to_owned());
            tokio::spawn(async move {
                // The client may go at any time.
                let _ = session(stream, script, &acceptor, implicit, &log).await;
            });
        }
    })
}

async fn full() -> Running {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = vec![];
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream.unwrap());
    }
    let task = tokio::spawn(async move {
        let _held = (listener, waiting);
        std::future::pending().await
    });
    Running {
        port: address.port(),
        heard: Heard::default(),
        task: Some(task),
        process: None,
    }
}

async fn session(
    mut stream: TcpStream,
    script: Script,
    tls: &TlsAcceptor,
    implicit: bool,
    log: &(dyn Fn(&str) + Send + Sync),
) -> io::Result<()> {
    if implicit {
        let mut stream = tls.accept(stream).await?;
        return converse(&mut stream, script, false, log).await.map(drop);
    }
    let in_clear = async {
        if !converse(&mut stream, script, false, log).await? {
            return Ok::<_, io::Error>(false);
        }
        let Some(answer) = scripted(script, "TLS") else {
            return Ok(true);
        };
        let _ = stream.read(&mut [0; 4096]).await?;
        reply(&mut stream, answer).await?;
        Ok(false)
    };
    match in_clear.await {
        Ok(true) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return stream.set_zero_linger();
        }
        other => return other.map(drop),
    }
    let mut stream = tls.accept(stream).await?;
    converse(&mut stream, script, true, log).await.map(drop)
}

fn scripted(script: Script, command: &str) -> Option<&'static str> {
    script
        .iter()
        .find(|(begins, _)| command.starts_with(begins))
        .map(|(_, answer)| *answer)
}

/// What the script does not mention is answered as a friendly server does.
fn usual(command: &str, secure: bool) -> &'static str {
    match command.split([' ', ':']).next().unwrap_or_default() {
        "GREETING" => "220 mail.example.org ESMTP",
        "EHLO" if secure => {
            "250-mail.example.org\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN"
        }
        "EHLO" => {
            "250-mail.example.org\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-AUTH PLAIN \
                LOGIN\r\n250 STARTTLS"
        }
        "STARTTLS" => "220 2.0.0 Ready to start TLS",
        "AUTH" => "235 2.7.0 Authentication successful",
        "DATA" => "354 End data with <CR><LF>.<CR><LF>",
        "QUIT" => "221 2.0.0 Bye",
        _ => "250 2.0.0 Ok",
    }
}

/// Plays the script; true where a handshake is to follow.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    script: Script,
    upgraded: bool,
    log: &(dyn Fn(&str) + Send + Sync),
) -> io::Result<bool> {
    let mut unread = Vec::new();
    if !upgraded
        && !reply(
            stream,
            scripted(script, "GREETING").unwrap_or(usual("GREETING", false)),
        )
        .await?
    {
        return Ok(false);
    }
    let mut in_message = false;
    loop {
        let Some(line) = next_line(stream, &mut unread).await? else {
            return Ok(false);
        };
        if in_message && line != "." {
            continue;
        }
        log(&line);
        let answer = scripted(script, &line).unwrap_or(usual(&line, upgraded));
        in_message = line == "DATA" && answer.starts_with("354");
        let in_body = scripted(script, "BODY").filter(|_| in_message);
        if !reply(stream, answer).await? {
            return Ok(false);
        }
        if let Some(answer) = in_body {
            let _ = stream.read(&mut [0; 4096]).await?;
            if answer == SILENCE {
                // Unread bytes soon fill the buffers on the way.
                std::future::pending::<()>().await;
            }
            return reply(stream, answer).await.map(|_| false);
        }
        if line == "STARTTLS" && answer.starts_with("220") {
            return Ok(true);
        }
    }
}

async fn next_line<S: AsyncRead + Unpin>(
    stream: &mut S,
    unread: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
}

/// False where the session ends with it.
async fn reply<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    answer: &str,
) -> io::Result<bool> {
    match answer {
        SILENCE => {
            // Until the client goes.
            tokio::io::copy(stream, &mut tokio::io::sink()).await?;
            return Ok(false);
        }
        CLOSE => return stream.shutdown().await.map(|()| false),
        RESET => return Err(io::ErrorKind::ConnectionReset.into()),
        _ => {}
    }
    stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    stream.flush().await?;
    if answer.starts_with("421") {
        // Its words arrive before it closes.
        sleep(Duration::from_millis(20)).await;
        return stream.shutdown().await.map(|()| false);
    }
    Ok(true)
}

fn openssl(world: &World, options: &[&str]) -> Running {
    let party = world.good();
    let (certificate, key) = (
        world.folder.path().join("server.pem"),
        world.folder.path().join("server.key"),
    );
    std::fs::write(&certificate, &party.pem).unwrap();
    std::fs::write(&key, party.key.serialize_pem()).unwrap();
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-accept", "127.0.0.1:0", "-cert"])
        .arg(certificate)
        .arg("-key")
        .arg(key);
    command
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = command.spawn().expect("openssl is installed");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let address = lines
        .find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned))
        .unwrap();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    // Whatever else it says is read, lest it wait for that.
    std::thread::spawn(move || lines.for_each(drop));
    // It ends when its input does.
    let input = process.stdin.take().unwrap();
    Running {
        port,
        heard: Heard::default(),
        task: None,
        process: Some((process, input)),
    }
}
