//! A connection: the server side of the dialogue.

pub(super) mod auth;
mod lines;
mod message;
#[cfg(feature = "sasl")]
mod scram;
mod transaction;

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::builder::Security;
use super::dialogue::Turn;
use super::fault::{Action, Moment, Step};
use super::listener::Peer;
use super::record::UNREADABLE;
use super::{Session, Shared};
#[cfg(feature = "sasl")]
use crate::proto::ChannelBinding;
use crate::proto::Protocol;
use message::Incoming;
use transaction::Transaction;

/// How many bytes are read from the socket, or written to a file, at once.
const BLOCK: usize = 256 * 1024;

/// The beginning of a message, in a recorded session: how much more of it is sent is a matter of
/// time.
const PART: Turn = Turn::Body(1);

struct ServerSession {
    server: Arc<Shared>,
    /// The index in the log.
    number: usize,
    stream: Box<dyn Peer>,
    input: BytesMut,
    output: Vec<u8>,
    /// Replies have been sent since the last command, so the next one starts a new group.
    is_new_group: bool,
    tls: Option<String>,
    /// The channel bindings of the TLS connection.
    #[cfg(feature = "sasl")]
    channel_bindings: Vec<ChannelBinding>,
    helo: Option<String>,
    /// The client sent EHLO or LHLO, so it may use extensions.
    is_extended: bool,
    login: Option<String>,
    transaction: Option<Transaction>,
    /// The number of transactions that were started.
    transactions_started: usize,
    /// The message that is being received in chunks.
    incoming: Option<Incoming>,
}

/// Serves one client until either side closes the connection.
pub(super) async fn serve(stream: Box<dyn Peer>, server: Arc<Shared>) {
    let number = {
        let mut log = server.log();
        log.sessions.push(Session {
            is_open: true,
            ..Session::default()
        });
        log.sessions.len() - 1
    };
    let session = ServerSession {
        server: server.clone(),
        number,
        stream,
        input: BytesMut::new(),
        output: Vec::new(),
        is_new_group: true,
        tls: None,
        #[cfg(feature = "sasl")]
        channel_bindings: Vec::new(),
        helo: None,
        is_extended: false,
        login: None,
        transaction: None,
        transactions_started: 0,
        incoming: None,
    };
    let end = session.run().await;
    server.faults().forget(number);
    let mut log = server.log();
    log.sessions[number].is_open = false;
    log.sessions[number].failure = end.err().map(|error| error.to_string());
}

impl ServerSession {
    async fn run(mut self) -> io::Result<()> {
        if self.server.settings.security == Security::Implicit {
            self = self.handshake().await?;
        }
        let greeting = match self.fault(Moment::At(Step::Greeting), "").await? {
            Some(reply) => reply,
            None if self.is_lmtp() => "220 localhost LMTP envoi".into(),
            None => "220 localhost ESMTP envoi".into(),
        };
        self.reply(&greeting);
        if greeting.starts_with("421") {
            return self.close().await;
        }
        while let Some(line) = self.line().await? {
            let line = match line {
                Ok(line) => line,
                Err(reply) => {
                    self.record(UNREADABLE);
                    self.reply(reply);
                    continue;
                }
            };
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let verb = verb.to_ascii_uppercase();
            let shown = lines::shown(&line);
            self.record(&shown);
            // The bytes of a chunk arrive in any case, so BDAT is handled below.
            if verb != "BDAT"
                && let Some(reply) = self.other_reply(Moment::Command, &shown).await?
            {
                self.reply(&reply);
                if reply.starts_with("421") {
                    break;
                }
                continue;
            }
            match verb.as_str() {
                "EHLO" | "HELO" if !self.is_lmtp() => self.hello(&verb, argument),
                "LHLO" if self.is_lmtp() => self.hello(&verb, argument),
                // RFC 2033, 4.1.
                "EHLO" | "HELO" => self.reply("500 5.5.1 This is LMTP: say LHLO"),
                "STARTTLS" => {
                    if let Some(refusal) = self.starttls_refusal(argument) {
                        self.reply(refusal);
                    } else if !self.input.is_empty() {
                        // Bytes sent in clear must not be processed inside TLS (RFC 3207, 4.2).
                        self.reply("554 5.5.0 Commands after STARTTLS are not accepted");
                        break;
                    } else {
                        self.reply("220 2.0.0 Ready to start TLS");
                        self.flush().await?;
                        self = self.handshake().await?;
                    }
                }
                "AUTH" => {
                    let reply = self.auth(argument).await?;
                    self.reply(reply);
                }
                "MAIL" => {
                    let reply = self.mail(argument);
                    self.reply(reply);
                }
                "RCPT" | "DATA" if self.incoming.is_some() => self.interrupt_chunks(),
                "RCPT" => {
                    let reply = self.rcpt(argument);
                    self.reply(&reply);
                }
                "DATA" => {
                    let replies = self.data(argument).await?;
                    replies.iter().for_each(|reply| self.reply(reply));
                    if replies.iter().any(|reply| reply.starts_with("421")) {
                        break;
                    }
                }
                "BDAT" if self.offers_extra("CHUNKING") => {
                    let replies = self.chunk(&shown, argument).await?;
                    replies.iter().for_each(|reply| self.reply(reply));
                    if replies.iter().any(|reply| reply.starts_with("421")) {
                        break;
                    }
                }
                "RSET" => {
                    self.drop_transaction();
                    self.reply("250 2.0.0 Ok");
                }
                "NOOP" => self.reply("250 2.0.0 Ok"),
                "VRFY" => self.reply("252 2.0.0 Cannot verify, but will take the message and try"),
                "HELP" => self.reply("214 2.0.0 See RFC 5321"),
                "QUIT" => {
                    self.reply("221 2.0.0 Bye");
                    break;
                }
                "EXPN" | "ETRN" | "TURN" | "BDAT" => {
                    self.reply("502 5.5.1 Command not implemented")
                }
                _ => self.reply("500 5.5.2 Command not recognised"),
            }
        }
        self.close().await
    }

    async fn close(mut self) -> io::Result<()> {
        // Without a last reply, it is the client that closed.
        let is_first_to_close = !self.output.is_empty();
        if is_first_to_close {
            self.record_rest();
        }
        self.flush().await?;
        if is_first_to_close {
            self.record_turn(Turn::Close);
        }
        // Not an error if the client has already closed the connection.
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// Performs the TLS handshake and discards all state from before it (RFC 3207, 4.2).
    async fn handshake(mut self) -> io::Result<Self> {
        if let Some(reply) = self.fault(Moment::At(Step::Handshake), "").await? {
            self.reply(&reply);
            self.close().await?;
            return Err(io::Error::other("a fault replied to the TLS handshake"));
        }
        // rustls reads at most 4 KiB from the stream at a time.
        let stream = BufReader::with_capacity(BLOCK, self.stream);
        let Some(acceptor) = &self.server.identity.acceptor else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let tls = acceptor.accept(stream).await?;
        let version = tls
            .get_ref()
            .1
            .protocol_version()
            .and_then(|version| version.as_str());
        let version = version.map(|name| name.replace("TLSv1_", "TLSv1."));
        {
            let session = &mut self.server.log().sessions[self.number];
            session.tls = version.clone();
            session.answer(Turn::Tls);
        }
        #[cfg(feature = "sasl")]
        let channel_bindings =
            scram::channel_bindings(self.server.identity.end_point.clone(), tls.get_ref().1)?;
        Ok(ServerSession {
            stream: Box::new(tls),
            tls: version,
            #[cfg(feature = "sasl")]
            channel_bindings,
            helo: None,
            is_extended: false,
            login: None,
            transaction: None,
            incoming: None,
            ..self
        })
    }

    fn hello(&mut self, verb: &str, name: &str) {
        if name.is_empty() || name.contains(' ') {
            self.reply("501 5.5.4 The client's name is missing, or more than a name");
            return;
        }
        self.drop_transaction();
        self.helo = Some(name.to_string());
        self.is_extended = verb != "HELO";
        if !self.is_extended {
            self.reply("250 localhost");
            return;
        }
        let mut lines = vec![format!("localhost greets {name}")];
        for keyword in [
            "PIPELINING",
            "SIZE",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "PRDR",
            "STARTTLS",
            "AUTH",
        ] {
            let is_offered = match keyword {
                "STARTTLS" => self.offers_tls(),
                "AUTH" => self.offers_auth(),
                "PRDR" => self.server.settings.prdr,
                _ => self.server.offers(keyword),
            };
            if is_offered {
                lines.push(match keyword {
                    "SIZE" => format!("SIZE {}", self.server.settings.max_size.unwrap_or(0)),
                    "AUTH" => format!("AUTH {}", self.offered_mechanisms().join(" ")),
                    _ => keyword.into(),
                });
            }
        }
        let offered = self
            .server
            .settings
            .offered
            .iter()
            .filter(|line| self.offers_extra(first_word(line)));
        lines.extend(offered.cloned());
        for (i, line) in lines.iter().enumerate() {
            let separator = if i + 1 == lines.len() { ' ' } else { '-' };
            self.output
                .extend_from_slice(format!("250{separator}{line}\r\n").as_bytes());
        }
    }

    /// Whether the builder was told to offer this extension.
    fn offers_extra(&self, keyword: &str) -> bool {
        let is_offered = self
            .server
            .settings
            .offered
            .iter()
            .any(|line| first_word(line).eq_ignore_ascii_case(keyword));
        // RFC 8689, 2: only inside TLS.
        is_offered && (self.tls.is_some() || !keyword.eq_ignore_ascii_case("REQUIRETLS"))
    }

    fn is_lmtp(&self) -> bool {
        self.server.settings.protocol == Protocol::Lmtp
    }

    /// The limit that the builder was told to offer (RFC 9422).
    fn limit(&self, name: &str) -> Option<usize> {
        let mut lines = self
            .server
            .settings
            .offered
            .iter()
            .filter(|line| first_word(line) == "LIMITS");
        lines.find_map(|line| {
            line.split(' ')
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        })
    }

    fn offers_tls(&self) -> bool {
        self.server.settings.security == Security::StartTls
            && self.tls.is_none()
            && self.server.offers("STARTTLS")
    }

    fn offers_auth(&self) -> bool {
        !self.offered_mechanisms().is_empty()
    }

    fn starttls_refusal(&self, argument: &str) -> Option<&'static str> {
        if self.tls.is_some() {
            Some("554 5.5.1 TLS is active already")
        } else if !self.offers_tls() {
            Some("502 5.5.1 Command not implemented")
        } else if !argument.is_empty() {
            Some("501 5.5.4 STARTTLS has no parameter")
        } else if !self.is_extended {
            Some("503 5.5.1 Say EHLO first")
        } else {
            None
        }
    }

    /// The reply of a fault or of [`Builder::answer`](super::Builder::answer), in place of the
    /// server's.
    async fn other_reply(&mut self, moment: Moment, command: &str) -> io::Result<Option<String>> {
        let reply = self.fault(moment, command).await?;
        Ok(reply.or_else(|| self.answer(command)))
    }

    fn answer(&self, command: &str) -> Option<String> {
        let answer = self.server.settings.answer.as_ref();
        answer.and_then(|answer| answer(command))
    }

    /// Makes the faults of this moment occur. Returns the reply, if there is one; an error if the
    /// connection has ended.
    async fn fault(&mut self, moment: Moment, text: &str) -> io::Result<Option<String>> {
        let actions = self.server.faults().reached(self.number, moment, text);
        for (step, action) in actions {
            if let Action::Reply(reply) = action {
                return Ok(Some(reply));
            }
            self.flush().await?;
            let ends = !matches!(action, Action::Delay(_));
            match moment {
                Moment::Body(..) if ends => self.record_turn(PART),
                _ if ends => self.record_rest(),
                _ => {}
            }
            let what = match action {
                Action::Reply(_) => continue,
                Action::Delay(delay) => {
                    tokio::time::sleep(delay).await;
                    continue;
                }
                Action::Close => {
                    self.record_turn(Turn::Close);
                    // Not an error if the client has already closed the connection. Unread input
                    // would make the system reset the connection instead.
                    let _ = self.stream.shutdown().await;
                    self.ignore_input().await;
                    "closed the connection"
                }
                Action::Reset => {
                    self.record_turn(Turn::Reset);
                    self.stream.reset_on_close();
                    "reset the connection"
                }
                Action::Hang => {
                    self.ignore_input().await;
                    "did not reply"
                }
            };
            return Err(io::Error::other(format!("a fault {what} at {step}")));
        }
        Ok(None)
    }

    /// Reads until the client closes the connection.
    async fn ignore_input(&mut self) {
        loop {
            self.input.clear();
            self.input.reserve(BLOCK);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn record(&mut self, command: &str) {
        let is_new_group = std::mem::take(&mut self.is_new_group);
        self.server.log().sessions[self.number].record(command, is_new_group);
    }

    fn record_turn(&self, turn: Turn) {
        self.server.log().sessions[self.number].answer(turn);
    }
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}
