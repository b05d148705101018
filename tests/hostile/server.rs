//! A server that remembers what it has stored, and can be killed at any step.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use envoi::mail_builder::MessageBuilder;
use envoi::mail_builder::headers::raw::Raw;
use envoi::testing::Server;
use envoi::tls::{Security, TlsSettings, Trust};
use envoi::{Address, Attachment, Endpoint, Envelope, Error, Message, Outcome, Receipt};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The extensions that the server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerBehavior {
    pub pipelining: bool,
    pub chunking: bool,
    pub lmtp: bool,
    /// BINARYMIME; requires `chunking`.
    pub binary: bool,
    /// A reply to the message for each recipient, where requested.
    pub prdr: bool,
    /// Delivery status notifications.
    pub dsn: bool,
    pub tls: Option<Security>,
}

impl ServerBehavior {
    /// Returns the settings of a client for it.
    pub fn endpoint(self) -> Endpoint {
        let endpoint = if self.lmtp {
            Endpoint::lmtp("localhost")
        } else {
            Endpoint::new("localhost")
        };
        match self.tls {
            None => endpoint.security(Security::None),
            Some(security) => endpoint
                .security(security)
                .tls(TlsSettings::new(Trust::empty().pem(&certificate().ca))),
        }
    }
}

/// A certificate for `localhost`, and the authority that signed it.
pub struct Certificate {
    pub ca: String,
    pub server: Arc<ServerConfig>,
}

pub fn certificate() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let server = Server::start().await.unwrap();
                Certificate {
                    ca: server.ca_pem().into(),
                    server: server.tls_config(),
                }
            })
        });
        made.join().unwrap()
    })
}

/// The stored messages of a server, which outlive its sessions.
#[derive(Clone, Default)]
pub struct ServerState(Arc<Mutex<Records>>);

#[derive(Default)]
pub struct Records {
    /// The number of copies of each message for each recipient, by `X-Id` and address.
    pub stored: BTreeMap<(usize, String), usize>,
    /// The number of messages requested by 354 or announced by BDAT.
    pub asked_for: usize,
    /// The number of steps: each command read, each reply started, half written and written, each
    /// half of a message.
    pub steps: usize,
    /// The MAIL and RCPT commands.
    pub envelopes: Vec<String>,
    /// The incomplete messages that were stored.
    pub broken: Vec<Vec<u8>>,
}

impl ServerState {
    pub fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap()
    }

    /// Serves a connection until the client closes it or this number of steps is reached.
    pub async fn serve(
        &self,
        stream: impl Stream + 'static,
        behavior: ServerBehavior,
        killed_at: usize,
    ) -> io::Result<()> {
        let mut session = ServerSession {
            state: self.clone(),
            behavior,
            killed_at,
            stream: Box::new(stream),
            input: Vec::new(),
        };
        if behavior.tls == Some(Security::Implicit) {
            session.secure().await?;
        }
        session.converse().await
    }

    fn store(&self, body: &[u8], recipient: &str) {
        let mut records = self.records();
        let text = String::from_utf8_lossy(body);
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("X-Id: ")?.parse().ok());
        match id {
            Some(id)
                if text.ends_with("end\r\n")
                    || text.contains("multipart/") && text.ends_with("--\r\n") =>
            {
                *records.stored.entry((id, recipient.into())).or_default() += 1
            }
            _ => records.broken.push(body.into()),
        }
    }

    /// Checks the reported outcome of a message against what is stored.
    pub fn audit(&self, id: usize, outcome: &Result<Receipt, Error>, context: &str) {
        let records = self.records();
        assert!(
            records.broken.is_empty(),
            "{context}: a part of a message was stored: {:?}",
            records.broken
        );
        let (recipients, unknown) = match outcome {
            Ok(receipt) => (&receipt.recipients, false),
            Err(error) => match error.receipt() {
                Some(receipt) => (&receipt.recipients, error.outcome_unknown()),
                None => panic!("{context}: the error has no recipients: {error}"),
            },
        };
        for recipient in recipients {
            let stored = records
                .stored
                .get(&(id, recipient.address.to_string()))
                .copied()
                .unwrap_or(0);
            let told = match &recipient.outcome {
                Outcome::Accepted(_) => stored == 1,
                Outcome::Refused(_) | Outcome::NotTried => stored == 0,
                Outcome::Unknown => stored <= 1 && unknown,
            };
            assert!(
                told,
                "{context}: message {id} is stored {stored} times, and the client is told \
                    {outcome:?}"
            );
        }
    }
}

struct ServerSession {
    state: ServerState,
    behavior: ServerBehavior,
    killed_at: usize,
    stream: Box<dyn Stream>,
    input: Vec<u8>,
}

impl ServerSession {
    /// The server dies here, if it is time.
    fn step(&self) -> io::Result<()> {
        let mut records = self.state.records();
        records.steps += 1;
        if records.steps > self.killed_at {
            Err(io::ErrorKind::Other.into())
        } else {
            Ok(())
        }
    }

    async fn secure(&mut self) -> io::Result<()> {
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        self.stream = Box::new(
            TlsAcceptor::from(certificate().server.clone())
                .accept(plain)
                .await?,
        );
        Ok(())
    }

    async fn converse(&mut self) -> io::Result<()> {
        self.reply("220 storage.example.org\r\n").await?;
        let (mut secure, mut recipients) =
            (self.behavior.tls == Some(Security::Implicit), Vec::new());
        let (mut chunks, mut prdr) = (Vec::new(), false);
        loop {
            let line = self.line().await?;
            if line.starts_with("MAIL") || line.starts_with("RCPT") {
                self.state.records().envelopes.push(line.clone());
            }
            let mut words = line.split(' ');
            match words.next().unwrap_or_default() {
                "EHLO" | "LHLO" => {
                    let mut offers =
                        String::from("250-storage.example.org\r\n250-AUTH PLAIN XOAUTH2\r\n");
                    for (offered, name) in [
                        (self.behavior.pipelining, "PIPELINING"),
                        (self.behavior.chunking, "CHUNKING"),
                        (self.behavior.binary, "BINARYMIME"),
                        (self.behavior.binary, "8BITMIME"),
                        (self.behavior.prdr, "PRDR"),
                        (self.behavior.dsn, "DSN"),
                        (
                            self.behavior.tls == Some(Security::Required) && !secure,
                            "STARTTLS",
                        ),
                    ] {
                        offers += &if offered {
                            format!("250-{name}\r\n")
                        } else {
                            String::new()
                        };
                    }
                    self.reply(&(offers + "250 SIZE\r\n")).await?;
                }
                "AUTH" => self.reply("235 welcome\r\n").await?,
                "STARTTLS" => {
                    self.reply("220 go\r\n").await?;
                    self.secure().await?;
                    secure = true;
                }
                "MAIL" => {
                    prdr = line.ends_with(" PRDR") || line.contains(" PRDR ");
                    self.reply("250 ok\r\n").await?;
                }
                "RCPT" if line.contains("<nobody@") => self.reply("550 no\r\n").await?,
                "RCPT" => {
                    recipients.push(
                        line["RCPT TO:<".len()..]
                            .split('>')
                            .next()
                            .unwrap_or_default()
                            .to_owned(),
                    );
                    self.reply("250 ok\r\n").await?;
                }
                "DATA" if recipients.is_empty() => self.reply("554 no recipients\r\n").await?,
                "DATA" => {
                    self.state.records().asked_for += 1;
                    self.reply("354 go\r\n").await?;
                    let body = self.stuffed().await?;
                    self.take(&body, std::mem::take(&mut recipients), prdr)
                        .await?;
                }
                "BDAT" => {
                    self.state.records().asked_for += 1;
                    let size = words.next().and_then(|size| size.parse().ok()).unwrap_or(0);
                    while self.input.len() < size {
                        self.read().await?;
                    }
                    chunks.extend(self.input.drain(..size));
                    self.step()?;
                    if recipients.is_empty() {
                        chunks.clear();
                        self.reply("554 no recipients\r\n").await?;
                    } else if words.next() == Some("LAST") {
                        self.take(
                            &std::mem::take(&mut chunks),
                            std::mem::take(&mut recipients),
                            prdr,
                        )
                        .await?;
                    } else {
                        self.reply("250 go on\r\n").await?;
                    }
                }
                "RSET" => {
                    recipients.clear();
                    chunks.clear();
                    self.reply("250 ok\r\n").await?;
                }
                "QUIT" => {
                    self.reply("221 bye\r\n").await?;
                    return self.stream.shutdown().await;
                }
                _ => self.reply("250 ok\r\n").await?,
            }
        }
    }

    /// The message is stored before it is confirmed (RFC 5321, 4.2.5). Where each recipient is
    /// answered for, some have no room.
    async fn take(&mut self, body: &[u8], recipients: Vec<String>, prdr: bool) -> io::Result<()> {
        if prdr {
            self.reply("353 each\r\n").await?;
        }
        if prdr || self.behavior.lmtp {
            for recipient in &recipients {
                if recipient.contains("full") {
                    self.reply("552 5.2.2 full\r\n").await?;
                    continue;
                }
                self.state.store(body, recipient);
                self.step()?;
                self.reply("250 stored\r\n").await?;
            }
            return if prdr {
                self.reply("250 done\r\n").await
            } else {
                Ok(())
            };
        }
        recipients
            .iter()
            .for_each(|recipient| self.state.store(body, recipient));
        self.step()?;
        self.reply("250 stored\r\n").await
    }

    async fn stuffed(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                return Ok(body);
            }
            body.extend_from_slice(line.strip_prefix('.').unwrap_or(&line).as_bytes());
            body.extend_from_slice(b"\r\n");
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                self.step()?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn reply(&mut self, reply: &str) -> io::Result<()> {
        let (half, rest) = reply.as_bytes().split_at(reply.len() / 2);
        self.step()?;
        self.stream.write_all(half).await?;
        self.stream.flush().await?;
        self.step()?;
        self.stream.write_all(rest).await?;
        self.stream.flush().await
    }
}

pub fn address(address: &str) -> Address {
    Address::new(address).unwrap()
}

pub fn envelope(recipients: &[&str]) -> Envelope {
    Envelope::new(
        address("me@example.org"),
        recipients.iter().map(|to| address(to)),
    )
    .unwrap()
}

/// A built message with a binary attachment.
pub fn binary_message(id: usize, recipients: &[&str], bytes: usize) -> Message<'static> {
    let built = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .header("X-Id", Raw::new(id.to_string()))
        .text_body("As promised.");
    let attachment = Attachment::bytes(
        "a.bin",
        "application/octet-stream",
        b"\r.\r\n.\n\0".repeat(bytes / 8),
    );
    Message::from(built)
        .attach(attachment)
        .binary(true)
        .envelope(envelope(recipients))
}

/// A text message that the server can tell from others and from a part of itself.
pub fn text_message(id: usize, recipients: &[&str], bytes: usize) -> Message<'static> {
    let filling = "All work and no play makes a dull message.\r\n.\r\n".repeat(bytes / 48);
    Message::raw(format!("X-Id: {id}\r\n\r\n{filling}end\r\n")).envelope(envelope(recipients))
}
