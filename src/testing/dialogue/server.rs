//! A server that plays a dialogue.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::FutureExt as _;
use memchr::memmem;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::script::{ANY, Line, Turn};
use super::{Dialogue, DialogueError};
use crate::proto::Protocol;
use crate::testing::Identity;
use crate::testing::body::Decoder;
use crate::testing::builder::Security;
use crate::testing::listener::Peer;
use crate::testing::url::Url;

/// The maximum duration of a turn.
const TURN: Duration = Duration::from_secs(10);
/// The maximum time until the client connects.
const CONNECT: Duration = Duration::from_secs(60);
/// The maximum length of a line of the client that contains [`ANY`].
const LINE_LIMIT: usize = 64 * 1024;
/// How much is read at a time.
const BLOCK: usize = 64 * 1024;
/// How much of what the client sent is in an error.
const SHOWN: usize = 2000;

/// A server on the loopback interface that plays a [`Dialogue`], and checks that the client keeps
/// to it.
///
/// It accepts one connection, and another one for each `CONNECT`. A turn of the client takes at
/// most 10 seconds; the first connection must come within a minute. Dropping the server ends it and
/// its connection.
#[derive(Debug)]
pub struct ScriptedServer {
    task: JoinHandle<Result<(), DialogueError>>,
    port: u16,
    url: String,
    ca_pem: String,
    /// Contains the CA file.
    _folder: TempDir,
}

impl ScriptedServer {
    /// Starts a server on a free port. It needs tokio's I/O and timers.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the dialogue has a login that cannot be played:
    /// see [`Dialogue::without_login`]. The port or the temporary folder is not available;
    /// [`Unsupported`](ErrorKind::Unsupported) if the dialogue has a TLS handshake, and the build
    /// neither of the features `aws-lc-rs` and `ring`.
    pub async fn start(dialogue: &Dialogue) -> io::Result<ScriptedServer> {
        if let Some(line) = dialogue.unplayable_login() {
            let message = format!(
                "line {line}: a login with SCRAM differs each time; remove it with \
                 Dialogue::without_login, and let the client not log in"
            );
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let script = dialogue.lines.clone();
        let security = match script.iter().position(|line| line.turn == Turn::Tls) {
            None => Security::Plaintext,
            Some(0) => Security::Implicit,
            Some(_) => Security::StartTls,
        };
        let identity = match Identity::localhost() {
            Err(_) if security == Security::Plaintext => Identity::default(),
            identity => identity?,
        };
        let folder = tempfile::Builder::new().prefix("envoi-").tempdir()?;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &identity.ca_pem)?;

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let url = url(dialogue, security, &ca_file, port);
        let task = tokio::spawn(play(listener, script, identity.acceptor));
        Ok(ScriptedServer {
            task,
            port,
            url,
            ca_pem: identity.ca_pem,
            _folder: folder,
        })
    }

    /// The name to connect to, which is in the certificate: `localhost`.
    pub fn host(&self) -> &str {
        "localhost"
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the server: the scheme and TLS as in the dialogue, and the CA file to trust. If
    /// the client logs in, it has the mechanisms of the dialogue, the user `user` and the password
    /// `password`, which match `***`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate of the CA that signed the server's certificate, in PEM; empty in a
    /// build without the features `aws-lc-rs` and `ring`.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Waits for the end of the dialogue, after which the client must close the connection.
    ///
    /// # Errors
    ///
    /// What the client did that is not in the dialogue, and in which line.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it ends the server.
    pub async fn finish(mut self) -> Result<(), DialogueError> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) => Err(DialogueError {
                line: None,
                message: format!("the server failed: {error}"),
            }),
        }
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn url(dialogue: &Dialogue, security: Security, ca_file: &Path, port: u16) -> String {
    let mechanisms = dialogue.mechanisms().join(",");
    let url = Url {
        protocol: match dialogue.has_command("LHLO ") {
            true => Protocol::Lmtp,
            false => Protocol::Smtp,
        },
        security,
        login: (!mechanisms.is_empty()).then_some(("user", "password")),
        auth_in_clear: true,
        ca_file,
    };
    let url = url.with_port("localhost", port);
    match mechanisms.is_empty() {
        true => url,
        false => format!("{url}&auth={mechanisms}"),
    }
}

async fn play(
    listener: TcpListener,
    script: Vec<Line>,
    acceptor: Option<TlsAcceptor>,
) -> Result<(), DialogueError> {
    let mut player = Player {
        listener: Some(listener),
        acceptor,
        stream: None,
        input: BytesMut::new(),
        announced: Announced::Nothing,
        in_body: false,
    };
    let accepted = timeout(CONNECT, player.accept(&script)).await;
    let accepted = accepted.unwrap_or_else(|_| Err("the client does not connect".to_owned()));
    accepted.map_err(|message| DialogueError::at((script[0].number, message)))?;
    let mut rest = &script[..];
    while let [line, ..] = rest {
        let turn = timeout(TURN, player.turn(rest)).await;
        let turn = turn.unwrap_or_else(|_| Err(format!("the client does nothing in {TURN:?}")));
        let length = turn.map_err(|message| DialogueError::at((line.number, message)))?;
        rest = &rest[length..];
    }
    let closed = timeout(TURN, player.wait_for_close(false)).await;
    let closed = closed.unwrap_or_else(|_| Err("the client does not close".to_owned()));
    closed.map_err(|message| DialogueError {
        line: None,
        message,
    })
}

/// What the client's last command announced.
enum Announced {
    Nothing,
    /// A message up to its final dot.
    Message,
    Chunk(u64),
}

struct Player {
    /// `None` after the last connection: another one is refused.
    listener: Option<TcpListener>,
    acceptor: Option<TlsAcceptor>,
    /// `None` after the end of the connection.
    stream: Option<Box<dyn Peer>>,
    /// What the client sent and no turn has taken.
    input: BytesMut,
    announced: Announced,
    /// The client is sending a message of which the dialogue has only the beginning.
    in_body: bool,
}

impl Player {
    /// Accepts a connection. `rest` are the turns on it, and on those after it.
    async fn accept(&mut self, rest: &[Line]) -> Result<(), String> {
        self.stream = None;
        self.input.clear();
        self.announced = Announced::Nothing;
        self.in_body = false;
        let Some(listener) = &self.listener else {
            return Err("the server does not listen any more".to_owned());
        };
        let accepted = listener.accept().await;
        let (stream, _) = accepted.map_err(|error| error.to_string())?;
        // Otherwise a reply may wait for the client's delayed acknowledgement. If this fails, the
        // connection is closed already.
        let _ = stream.set_nodelay(true);
        self.stream = Some(Box::new(stream));
        if !rest.iter().any(|line| line.turn == Turn::Connect) {
            self.listener = None;
        }
        Ok(())
    }

    /// Plays the first turn, with those that belong to it. Returns how many these are.
    async fn turn(&mut self, rest: &[Line]) -> Result<usize, String> {
        match &rest[0].turn {
            Turn::Server(_) => {
                let group: Vec<&[u8]> = rest
                    .iter()
                    .map_while(|line| match &line.turn {
                        Turn::Server(bytes) => Some(bytes.as_slice()),
                        _ => None,
                    })
                    .collect();
                self.reply(&group.concat()).await?;
                return Ok(group.len());
            }
            Turn::Client(bytes) => self.expect(bytes).await?,
            Turn::Message => self.skip_message().await?,
            Turn::Body(size) => {
                self.skip(*size as u64).await?;
                self.in_body = true;
            }
            Turn::Tls => self.handshake().await?,
            Turn::Close => self.close().await,
            Turn::Reset => {
                if let Some(stream) = &self.stream {
                    stream.reset_on_close();
                }
                (self.stream, self.input) = (None, BytesMut::new());
            }
            Turn::WaitClose => self.wait_for_close(self.in_body).await?,
            Turn::QuitOrClose => self.wait_for_quit().await?,
            Turn::Connect => self.accept(&rest[1..]).await?,
        }
        Ok(1)
    }

    async fn reply(&mut self, bytes: &[u8]) -> Result<(), String> {
        // What is read here was sent too early; what arrives between this and the write cannot be
        // told apart.
        if !self.in_body && (!self.input.is_empty() || self.fill().now_or_never() == Some(true)) {
            return Err(format!(
                "before the server's {:?}, the client sent {}",
                text(bytes),
                self.sent()
            ));
        }
        self.write(bytes).await;
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            // If the client has closed the connection, its next turn fails.
            let _ = stream.write_all(bytes).await;
            let _ = stream.flush().await;
        }
    }

    async fn expect(&mut self, expected: &[u8]) -> Result<(), String> {
        let length = loop {
            match find(expected, &self.input) {
                Found::Whole(length) => break length,
                Found::Beginning if self.fill().await => {}
                found => {
                    let end = match found {
                        Found::Beginning => " and closed",
                        _ => "",
                    };
                    return Err(format!(
                        "expected {:?}, but the client sent {}{end}",
                        text(expected),
                        self.sent()
                    ));
                }
            }
        };
        let line = self.input.split_to(length).to_ascii_uppercase();
        let mut words = line.split(u8::is_ascii_whitespace);
        self.announced = match words.next() {
            Some(b"DATA") => Announced::Message,
            Some(b"BDAT") => {
                let size = words.next().and_then(|size| str::from_utf8(size).ok());
                let size = size.and_then(|size| size.parse().ok());
                size.map_or(Announced::Nothing, Announced::Chunk)
            }
            _ => Announced::Nothing,
        };
        Ok(())
    }

    async fn skip_message(&mut self) -> Result<(), String> {
        self.in_body = false;
        match std::mem::replace(&mut self.announced, Announced::Nothing) {
            Announced::Nothing => Err("neither DATA nor BDAT is before the message".to_owned()),
            Announced::Chunk(size) => self.skip(size).await,
            Announced::Message => {
                let mut decoder = Decoder::default();
                let mut message = Vec::new();
                loop {
                    let end = decoder.decode(&self.input, &mut message);
                    self.input.advance(end.unwrap_or(self.input.len()));
                    if end.is_some() {
                        return Ok(());
                    }
                    message.clear();
                    if !self.fill().await {
                        return Err("the client closed before the final dot".to_owned());
                    }
                }
            }
        }
    }

    /// Takes this number of bytes of a message.
    async fn skip(&mut self, size: u64) -> Result<(), String> {
        let mut left = size;
        while left > 0 {
            if self.input.is_empty() && !self.fill().await {
                let sent = size - left;
                return Err(format!(
                    "the client closed after {sent} of {size} bytes of the message"
                ));
            }
            let here = self
                .input
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.input.advance(here);
            left -= here as u64;
        }
        Ok(())
    }

    async fn handshake(&mut self) -> Result<(), String> {
        if !self.input.is_empty() {
            return Err(format!(
                "before the TLS handshake, the client sent {}",
                self.sent()
            ));
        }
        let (Some(acceptor), Some(stream)) = (&self.acceptor, self.stream.take()) else {
            return Err("the connection has ended before the TLS handshake".to_owned());
        };
        // rustls reads at most 4 KiB from the stream at a time.
        let stream = BufReader::with_capacity(BLOCK, stream);
        let accepted = acceptor.accept(stream).await;
        let tls = accepted.map_err(|error| format!("the TLS handshake failed: {error}"))?;
        self.stream = Some(Box::new(tls));
        Ok(())
    }

    async fn wait_for_quit(&mut self) -> Result<(), String> {
        if self.in_body {
            return self.wait_for_close(true).await;
        }
        while !self.input.ends_with(b"\n") && self.fill().await {}
        // A pool drops an open transaction when the connection is returned.
        const RSET: &[u8] = b"RSET\r\n";
        if self.input.len() >= RSET.len() && self.input[..RSET.len()].eq_ignore_ascii_case(RSET) {
            self.input.advance(RSET.len());
            self.write(b"250 2.0.0 OK\r\n").await;
            while !self.input.ends_with(b"\n") && self.fill().await {}
        }
        if self.input.eq_ignore_ascii_case(b"QUIT\r\n") {
            self.input.clear();
            self.reply(b"221 2.0.0 Bye\r\n").await?;
            self.close().await;
            return Ok(());
        }
        match self.input.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "the client sent {} instead of QUIT or the end of the connection",
                self.sent()
            )),
        }
    }

    /// Waits until the client closes the connection. The rest of a message may still be arriving.
    async fn wait_for_close(&mut self, rest_of_message: bool) -> Result<(), String> {
        loop {
            match self.input.is_empty() {
                false if !rest_of_message => {
                    let sent = self.sent();
                    return Err(format!("the client sent {sent} instead of closing"));
                }
                false => self.input.clear(),
                true => {}
            }
            if !self.fill().await {
                return Ok(());
            }
        }
    }

    async fn close(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            // Not an error if the client has already closed the connection.
            let _ = stream.shutdown().await;
        }
        self.input.clear();
    }

    /// Reads what is available. Returns `false` at the end of the connection, which a client may
    /// also end without TLS's own end, or by a reset.
    async fn fill(&mut self) -> bool {
        let Some(stream) = &mut self.stream else {
            return false;
        };
        self.input.reserve(BLOCK);
        matches!(stream.read_buf(&mut self.input).await, Ok(size) if size > 0)
    }

    /// What the client sent and no turn has taken, for errors.
    fn sent(&self) -> String {
        format!("{:?}", text(&self.input))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).into_owned()
}

/// Where the expected text is at the start of the input.
#[derive(Debug, PartialEq)]
enum Found {
    /// Its length.
    Whole(usize),
    /// What is there may be the beginning of it.
    Beginning,
    Nothing,
}

fn find(expected: &[u8], input: &[u8]) -> Found {
    let parts: Vec<&str> = match str::from_utf8(expected) {
        Ok(line) if line.ends_with('\n') => line.split(ANY).collect(),
        _ => Vec::new(),
    };
    let [first, middle @ .., last] = &parts[..] else {
        return if input.starts_with(expected) {
            Found::Whole(expected.len())
        } else if expected.starts_with(input) {
            Found::Beginning
        } else {
            Found::Nothing
        };
    };
    let Some(end) = memchr::memchr(b'\n', input) else {
        let shared = first.len().min(input.len());
        let may_match = input[..shared] == first.as_bytes()[..shared];
        return match may_match && input.len() < LINE_LIMIT {
            true => Found::Beginning,
            false => Found::Nothing,
        };
    };
    let line = &input[..=end];
    let rest = line.strip_prefix(first.as_bytes());
    let rest = rest.and_then(|rest| rest.strip_suffix(last.as_bytes()));
    let rest = middle.iter().try_fold(rest, |rest, part| {
        let at = memmem::find(rest?, part.as_bytes())?;
        Some(rest.map(|rest| &rest[at + part.len()..]))
    });
    match rest {
        Some(Some(_)) => Found::Whole(end + 1),
        _ => Found::Nothing,
    }
}
