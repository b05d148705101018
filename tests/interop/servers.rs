//! The servers, started once for all tests by `servers.sh`, and what they have delivered.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use envoi::Address;
use envoi::mailer::Sendmail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Users as they stand in a URL: alice with `dummy 123+/=`, bob with `Grüße@1%20?#&`.
pub const ALICE: &str = "alice%40envoi.test:dummy%20123%2B%2F%3D@";
pub const BOB: &str = "bob%40envoi.test:Gr%C3%BC%C3%9Fe%401%2520%3F%23%26@";
pub const NO_LOGIN: &str = "";

/// How long a message may take from the queue to the mailbox.
const DELIVERY: Duration = Duration::from_secs(60);

/// One server: its ports, and where its mail is.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: &'static str,
    pub port_25: u16,
    pub port_587: u16,
    pub port_465: u16,
    pub ca: PathBuf,
    mail: PathBuf,
}

impl Server {
    /// Plain SMTP without a login, as between servers.
    pub fn plain(&self) -> String {
        format!("smtp://127.0.0.1:{}?tls=none&timeout=30", self.port_25)
    }

    /// STARTTLS on the submission port.
    pub fn starttls(&self, user: &str) -> String {
        format!(
            "smtp://{user}localhost:{}?trust={}&timeout=30",
            self.port_587,
            self.ca.display()
        )
    }

    /// TLS from the first byte.
    pub fn implicit(&self, user: &str) -> String {
        format!(
            "smtps://{user}localhost:{}?trust={}&timeout=30",
            self.port_465,
            self.ca.display()
        )
    }

    /// The three classic settings.
    pub fn settings(&self) -> [String; 3] {
        [self.plain(), self.starttls(ALICE), self.implicit(ALICE)]
    }

    /// The `sendmail` program of the server, with a queue of the tests' own. Postfix's does not
    /// permit anyone to submit mail if it is `closed`.
    pub fn sendmail(&self, closed: bool) -> Sendmail {
        let folder = self.mail.join("../..");
        let (program, settings) = match (self.name, closed) {
            ("Exim", _) => (exim_program(), "exim/exim.conf"),
            (_, false) => ("/usr/sbin/sendmail".into(), "postfix/conf"),
            (_, true) => ("/usr/sbin/sendmail".into(), "postfix/conf-closed"),
        };
        Sendmail::new(program).arg("-C").arg(folder.join(settings))
    }

    /// How many lines of Postfix's log have all of these words.
    pub fn logged(&self, words: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.mail.join("../../log/postfix.log")).unwrap();
        log.lines()
            .filter(|line| words.iter().all(|words| line.contains(words)))
            .count()
    }

    /// Waits until there are so many.
    pub async fn until_logged(&self, count: usize, words: &[&str]) {
        let began = Instant::now();
        while self.logged(words) < count {
            assert!(
                began.elapsed() < DELIVERY,
                "{} of {count} lines with {words:?}",
                self.logged(words)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The one message that was delivered to this recipient, when it is there.
    pub async fn delivered(&self, recipient: &Address) -> Delivered {
        let mut all = self.mailbox(recipient, 1).await;
        all.remove(0)
    }

    /// The messages that were delivered to this recipient, when so many are there.
    pub async fn mailbox(&self, recipient: &Address, count: usize) -> Vec<Delivered> {
        let files = self.files(recipient, count).await;
        files
            .iter()
            .map(|file| Delivered::parse(&std::fs::read(file).unwrap()))
            .collect()
    }

    /// The headers of each message that Exim has in its queue for a recipient: those are kept there
    /// whose names begin with `queued`.
    pub fn queued(&self, recipient: &Address) -> Vec<String> {
        let files = std::fs::read_dir(self.mail.join("../../exim/spool/input")).unwrap();
        let headers = files
            .map(|file| file.unwrap().path())
            .filter(|file| file.to_string_lossy().ends_with("-H"));
        let texts =
            headers.map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
        texts
            .filter(|text| text.lines().any(|line| line == recipient.as_str()))
            .collect()
    }

    /// Whether nothing was ever delivered to this recipient.
    pub fn has_no_mailbox(&self, recipient: &Address) -> bool {
        !self.folder(recipient).exists()
    }

    /// The servers store the name of a mailbox without its quotes.
    fn folder(&self, recipient: &Address) -> PathBuf {
        let name = match recipient.as_str().strip_prefix('"') {
            Some(quoted) => quoted.replacen("\"@", "@", 1),
            None => recipient.to_string(),
        };
        self.mail.join(name)
    }

    /// The files of a mailbox, in the order of their delivery, when so many are there.
    pub async fn files(&self, recipient: &Address, count: usize) -> Vec<PathBuf> {
        let folder = self.folder(recipient).join("new");
        let began = Instant::now();
        loop {
            let entries = std::fs::read_dir(&folder).into_iter().flatten();
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            if files.len() >= count {
                assert_eq!(
                    files.len(),
                    count,
                    "messages for {recipient} at {}",
                    self.name
                );
                files.sort();
                return files;
            }
            let missing = || {
                format!(
                    "{} delivered {} of {count} messages to {recipient}",
                    self.name,
                    files.len()
                )
            };
            assert!(began.elapsed() < DELIVERY, "{}", missing());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A message in its mailbox.
#[derive(Debug)]
pub struct Delivered {
    /// The fields that the server put before it: where it came from.
    pub trace: String,
    /// The message as the client sent it, with CRLF.
    pub message: Vec<u8>,
}

impl Delivered {
    fn parse(file: &[u8]) -> Self {
        let mut trace = String::new();
        let mut rest = file;
        // All up to Received, with its folded lines.
        let mut after_received = false;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, next) = rest.split_at(end + 1);
            if after_received && !matches!(line[0], b' ' | b'\t') {
                break;
            }
            after_received |= line.starts_with(b"Received: ");
            trace.push_str(std::str::from_utf8(line).unwrap());
            rest = next;
        }
        let known = [
            "return-path",
            "x-original-to",
            "delivered-to",
            "envelope-to",
            "received",
        ];
        for line in trace.lines().filter(|line| !line.starts_with([' ', '\t'])) {
            let name = line.split(':').next().unwrap().to_ascii_lowercase();
            assert!(
                known.contains(&name.as_str()),
                "{line} is not the server's:\n{trace}"
            );
        }
        // The servers keep lines with LF.
        Delivered {
            trace,
            message: with_crlf(rest),
        }
    }

    /// For messages that are text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.message).unwrap()
    }
}

/// Every CRLF, CR and LF as CRLF; a last line without one gets one.
pub fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(text.len() + text.len() / 32 + 2);
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'\r' | b'\n'))
            .unwrap_or(rest.len());
        wire.extend_from_slice(&rest[..end]);
        wire.extend_from_slice(b"\r\n");
        let after = if rest[end..].starts_with(b"\r\n") {
            end + 2
        } else {
            end + 1
        };
        rest = rest.get(after..).unwrap_or_default();
    }
    wire
}

/// An address that no other test uses.
pub fn someone(name: &str) -> Address {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    Address::new(format!(
        "{name}-{}@envoi.test",
        NEXT.fetch_add(1, Ordering::Relaxed)
    ))
    .unwrap()
}

/// Where `install.sh` puts Exim, and `servers.sh` finds it.
fn exim_program() -> PathBuf {
    let cache = std::env::var_os("ENVOI_INTEROP_CACHE");
    Path::new(&cache.unwrap_or_else(|| "/var/cache/envoi-interop".into()))
        .join("exim/usr/sbin/exim4")
}

// ---- Starting them ----

/// Postfix and Exim.
pub fn both() -> impl Iterator<Item = &'static Server> {
    [postfix(), exim()].into_iter().inspect(|server| {
        // Seen where the test fails.
        println!("with {}", server.name);
    })
}

pub fn postfix() -> &'static Server {
    &servers().postfix
}

/// Postfix that offers no PIPELINING on its submission port.
pub fn lockstep() -> Server {
    let port_587 = servers().port_lockstep;
    Server {
        name: "Postfix without PIPELINING",
        port_587,
        ..postfix().clone()
    }
}

/// Postfix with TLS of another kind (`CHAIN`, `CLIENT`, `TLS12` or `BROKEN`), more `LOGINS`, the
/// PROXY protocol (`HAPROXY`), a short patience (`HASTY`) on its submission port, or three
/// recipients at once (`POSTFIX_PORT_FEW`).
pub fn special(port: &str) -> Server {
    Server {
        port_587: special_port(port),
        ..postfix().clone()
    }
}

/// A proxy, `SOCKS` or `HTTP`, or another port that there is one of.
pub fn special_port(port: &str) -> u16 {
    servers().special[SPECIAL
        .iter()
        .position(|name| name.ends_with(port))
        .unwrap()]
}

pub fn exim() -> &'static Server {
    &servers().exim
}

/// Postfix and Exim that take three recipients in a transaction: the others get 452; or 552, and
/// the whole message is refused.
pub fn few() -> [Server; 3] {
    [
        ("POSTFIX_PORT_FEW", postfix()),
        ("EXIM_PORT_FEW", exim()),
        ("EXIM_PORT_STRICT", exim()),
    ]
    .map(|(port, server)| Server {
        name: port,
        port_25: special_port(port),
        ..server.clone()
    })
}

/// Dovecot: its mailboxes, and its submission service on port 587, which hands on to Postfix.
pub fn dovecot() -> &'static Dovecot {
    &servers().dovecot
}

pub struct Dovecot {
    pub server: Server,
    pub port_lmtp: u16,
    socket: PathBuf,
}

impl Dovecot {
    /// LMTP, over TCP and at the Unix socket.
    pub fn lmtp(&self) -> [String; 2] {
        let tcp = format!("lmtp://127.0.0.1:{}?timeout=30", self.port_lmtp);
        [
            tcp,
            format!("lmtp+unix://{}?timeout=30", self.socket.display()),
        ]
    }
}

struct Servers {
    postfix: Server,
    exim: Server,
    dovecot: Dovecot,
    port_lockstep: u16,
    /// In the order of [`SPECIAL`].
    special: [u16; SPECIAL.len()],
    /// The script that runs them. It ends them when this process, and with it the script's stdin,
    /// ends.
    _script: Child,
}

fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Result<Servers, String>> = OnceLock::new();
    match SERVERS.get_or_init(start) {
        Ok(servers) => servers,
        Err(why) => panic!("{why}"),
    }
}

const SPECIAL: [&str; 12] = [
    "POSTFIX_PORT_CHAIN",
    "POSTFIX_PORT_CLIENT",
    "POSTFIX_PORT_TLS12",
    "POSTFIX_PORT_BROKEN",
    "POSTFIX_PORT_LOGINS",
    "POSTFIX_PORT_HAPROXY",
    "POSTFIX_PORT_HASTY",
    "PROXY_PORT_SOCKS",
    "PROXY_PORT_HTTP",
    "POSTFIX_PORT_FEW",
    "EXIM_PORT_FEW",
    "EXIM_PORT_STRICT",
];

const PORTS: [&str; 21] = [
    "POSTFIX_PORT_25",
    "POSTFIX_PORT_587",
    "POSTFIX_PORT_465",
    "POSTFIX_PORT_LOCKSTEP",
    "EXIM_PORT_25",
    "EXIM_PORT_587",
    "EXIM_PORT_465",
    "DOVECOT_PORT_LMTP",
    "DOVECOT_PORT_587",
    SPECIAL[0],
    SPECIAL[1],
    SPECIAL[2],
    SPECIAL[3],
    SPECIAL[4],
    SPECIAL[5],
    SPECIAL[6],
    SPECIAL[7],
    SPECIAL[8],
    SPECIAL[9],
    SPECIAL[10],
    SPECIAL[11],
];

fn start() -> Result<Servers, String> {
    let mut why = String::new();
    for attempt in 1..=3 {
        let ports = free_ports();
        let folder =
            std::env::temp_dir().join(format!("envoi-interop-{}-{attempt}", std::process::id()));
        match start_on(&ports, &folder) {
            Ok(servers) => return Ok(servers),
            Err(error) => _ = write!(why, "\n{}: {error}", folder.display()),
        }
        // Another program may have taken a port before the servers could; another failure would
        // only come again.
        if ports
            .iter()
            .all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        {
            break;
        }
    }
    Err(format!(
        "the servers did not start; what servers.sh said stands above, their logs in{why}"
    ))
}

/// All are held until the last is found, so that they differ.
fn free_ports() -> [u16; PORTS.len()] {
    let held = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn start_on(ports: &[u16; PORTS.len()], folder: &Path) -> Result<Servers, String> {
    let mut script = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/interop/servers.sh"
    ))
    .arg("run")
    .arg(folder)
    .envs(PORTS.into_iter().zip(ports.map(|port| port.to_string())))
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .map_err(|error| format!("servers.sh cannot be run: {error}"))?;
    let mut line = String::new();
    // It is there, as it was piped.
    let stdout = script.stdout.take().unwrap();
    BufReader::new(stdout)
        .read_line(&mut line)
        .map_err(|error| error.to_string())?;
    if line != "ready\n" {
        let status = script.wait().map_err(|error| error.to_string())?;
        return Err(format!("servers.sh ended with {status}"));
    }
    let [
        p25,
        p587,
        p465,
        port_lockstep,
        e25,
        e587,
        e465,
        port_lmtp,
        d587,
        special @ ..,
    ] = *ports;
    let server = |name, mail, port_25, port_587, port_465| {
        let ca = folder.join("tls/ca.pem");
        Server {
            name,
            port_25,
            port_587,
            port_465,
            ca,
            mail: folder.join("mail").join(mail),
        }
    };
    Ok(Servers {
        postfix: server("Postfix", "postfix", p25, p587, p465),
        exim: server("Exim", "exim", e25, e587, e465),
        dovecot: Dovecot {
            // It has no other ports for SMTP.
            server: server("Dovecot", "dovecot", d587, d587, d587),
            port_lmtp,
            socket: folder.join("dovecot/run/lmtp"),
        },
        port_lockstep,
        special,
        _script: script,
    })
}

// ---- Listening in ----

/// Passes connections on to a port, and keeps what the client says.
pub struct Tap {
    pub port: u16,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    pub async fn on(port: u16) -> Tap {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tap = Tap {
            port: listener.local_addr().unwrap().port(),
            said: Arc::default(),
        };
        let said = tap.said.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, port, said.clone()));
            }
        });
        tap
    }

    /// All that the client said. Complete, once the client has heard the answer.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }
}

async fn pass_on(client: TcpStream, port: u16, said: Arc<Mutex<Vec<u8>>>) {
    let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        said.lock().unwrap().extend_from_slice(&buffer[..length]);
        if to_server.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
