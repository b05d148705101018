//! The server of the benchmarks, in a process of its own, so that CPU time and memory are those of
//! the client alone. It accepts every message, counts its bytes, and discards them.
//!
//! It does as little as possible, with a thread and a blocking socket for each connection, to leave
//! the processor to the client. After DATA, it searches for the end of the message; BDAT is only
//! counted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use memchr::{memchr, memmem};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A running sink. It ends when this is dropped, or when the process that started it ends.
pub struct Sink {
    child: Child,
    reports: BufReader<ChildStdout>,
    plain: u16,
    tls: u16,
    pub ca_file: PathBuf,
}

/// The messages of one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrived {
    pub messages: u64,
    /// The size of all messages, without stuffed and final dots.
    pub bytes: u64,
    pub tls: bool,
}

impl Sink {
    /// Runs this program again as the sink: its `main` calls [`serve`] if the first argument is
    /// `sink`.
    pub fn start(extensions: &[&str]) -> Sink {
        let program = std::env::current_exe().expect("this program's own path");
        let mut child = Command::new(program)
            .arg("sink")
            .args(extensions)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be run again");
        let mut reports = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        reports.read_line(&mut line).expect("the sink starts");
        let words: Vec<&str> = line.trim_end().splitn(3, ' ').collect();
        let [plain, tls, ca_file] = words[..] else {
            panic!("the sink said {line:?}")
        };
        let port = |word: &str| word.parse().expect("a port");
        Sink {
            plain: port(plain),
            tls: port(tls),
            ca_file: ca_file.into(),
            child,
            reports,
        }
    }

    pub fn port(&self, tls: bool) -> u16 {
        if tls { self.tls } else { self.plain }
    }

    /// The messages of the next connection that ends. Must be called once for each.
    pub fn arrived(&mut self) -> Arrived {
        let mut line = String::new();
        self.reports.read_line(&mut line).expect("the sink reports");
        let figures: Vec<u64> = line
            .split_whitespace()
            .map(|figure| figure.parse().expect("a figure"))
            .collect();
        let [messages, bytes, tls] = figures[..] else {
            panic!("the sink said {line:?}")
        };
        Arrived {
            messages,
            bytes,
            tls: tls == 1,
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs the sink until its standard input ends.
pub fn serve(extensions: Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // Only for its certificate.
    let server = runtime
        .block_on(envoi::testing::Server::start())
        .expect("a certificate");
    let extensions: Arc<[String]> = extensions.into();
    let mut ports = [0; 2];
    for (port, tls) in ports.iter_mut().zip([None, Some(server.tls_config())]) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        *port = listener.local_addr().expect("a port").port();
        let extensions = extensions.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, extensions) = (tls.clone(), extensions.clone());
                std::thread::spawn(move || accept(stream, tls, &extensions));
            }
        });
    }
    println!("{} {} {}", ports[0], ports[1], server.ca_file().display());
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

fn accept(stream: TcpStream, tls: Option<Arc<ServerConfig>>, extensions: &[String]) {
    stream.set_nodelay(true).expect("a socket option");
    let is_tls = tls.is_some();
    let (messages, bytes) = match tls {
        None => Session::new(stream).converse(extensions),
        Some(config) => {
            let tls = ServerConnection::new(config).expect("a configuration");
            Session::new(StreamOwned::new(tls, stream)).converse(extensions)
        }
    };
    println!("{messages} {bytes} {}", u8::from(is_tls));
}

struct Session<S> {
    stream: S,
    input: Vec<u8>,
    /// Input that was not processed yet.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    messages: u64,
    bytes: u64,
}

impl<S: Read + Write> Session<S> {
    fn new(stream: S) -> Self {
        let (input, output) = (vec![0; 256 << 10], Vec::new());
        Session {
            stream,
            input,
            unread: 0..0,
            output,
            messages: 0,
            bytes: 0,
        }
    }

    /// Serves until QUIT or the end of the connection.
    fn converse(mut self, extensions: &[String]) -> (u64, u64) {
        self.output
            .extend_from_slice(b"220 localhost ESMTP sink\r\n");
        let _ = self.commands(extensions);
        let _ = self
            .stream
            .write_all(&self.output)
            .and_then(|()| self.stream.flush());
        (self.messages, self.bytes)
    }

    fn commands(&mut self, extensions: &[String]) -> io::Result<()> {
        loop {
            let end = loop {
                if let Some(end) = memchr(b'\n', self.unread()) {
                    break end + 1;
                }
                self.fill()?;
            };
            let line = String::from_utf8_lossy(&self.unread()[..end]).to_ascii_uppercase();
            self.unread.start += end;
            let mut words = line.split_whitespace();
            match words.next() {
                Some("EHLO") => {
                    self.output.extend_from_slice(b"250-localhost\r\n");
                    for extension in extensions {
                        self.output
                            .extend_from_slice(format!("250-{extension}\r\n").as_bytes());
                    }
                    self.output.extend_from_slice(b"250 HELP\r\n");
                }
                Some("DATA") => {
                    self.output.extend_from_slice(b"354 Go on\r\n");
                    self.data()?;
                    self.taken();
                }
                Some("BDAT") => {
                    let size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
                    self.chunk(size)?;
                    if words.next().is_some() {
                        self.taken()
                    } else {
                        self.output.extend_from_slice(b"250 Ok\r\n")
                    }
                }
                Some("QUIT") => {
                    self.output.extend_from_slice(b"221 Bye\r\n");
                    return Ok(());
                }
                _ => self.output.extend_from_slice(b"250 Ok\r\n"),
            }
        }
    }

    fn taken(&mut self) {
        self.messages += 1;
        self.output.extend_from_slice(b"250 2.0.0 Taken\r\n");
    }

    /// Reads up to the final dot. No message begins with a dot here.
    fn data(&mut self) -> io::Result<()> {
        let line_and_dot = memmem::Finder::new(b"\r\n.");
        loop {
            let Some(found) = line_and_dot.find(self.unread()) else {
                self.take(self.unread.len().saturating_sub(2));
                self.fill()?;
                continue;
            };
            self.take(found + 2);
            while self.unread.len() < 3 {
                self.fill()?;
            }
            self.unread.start += 1; // The dot: stuffed, or the end.
            if self.unread().starts_with(b"\r\n") {
                self.unread.start += 2;
                return Ok(());
            }
        }
    }

    fn chunk(&mut self, mut left: usize) -> io::Result<()> {
        loop {
            let here = left.min(self.unread.len());
            self.take(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, count: usize) {
        self.bytes += count as u64;
        self.unread.start += count;
    }

    fn unread(&self) -> &[u8] {
        &self.input[self.unread.clone()]
    }

    /// Sends the pending replies, then reads more.
    fn fill(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.stream.flush()?;
            self.output.clear();
        }
        self.input.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let count = self.stream.read(&mut self.input[self.unread.end..])?;
        self.unread.end += count;
        if count > 0 {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}
