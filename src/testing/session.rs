//! One connection: the server's end of the dialogue.

mod login;
mod scram;

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use memchr::memchr;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_rustls::rustls::ProtocolVersion;

use super::body::Decoder;
use super::{Captured, Security, Session, Shared};
use crate::delivery::Notify;
use crate::proto::{ChannelBinding, Protocol};

/// The longest line taken: what RFC 4954, 4 asks of a server with AUTH, far above RFC 5321, 4.5.3.1.4.
const LINE_LIMIT: usize = 12_288;
/// How much is read from the socket and written to a file at once.
const BLOCK: usize = 256 * 1024;

/// What is read from and written to, TLS or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

struct Conversation {
    server: Arc<Shared>,
    /// Its place in the log.
    number: usize,
    stream: Box<dyn Stream>,
    input: BytesMut,
    output: Vec<u8>,
    /// Replies went out since the last command: the next one starts a new group.
    is_new_group: bool,
    tls: Option<String>,
    /// What ties a login to the TLS connection.
    channels: Vec<ChannelBinding>,
    helo: Option<String>,
    /// The client said EHLO or LHLO, so it may use extensions.
    is_extended: bool,
    login: Option<String>,
    transaction: Option<Transaction>,
    /// How many transactions were begun.
    mails: usize,
    /// The message that comes in chunks.
    incoming: Option<Incoming>,
}

#[derive(Default)]
struct Transaction {
    reverse_path: Option<String>,
    parameters: Vec<String>,
    is_utf8: bool,
    is_prdr: bool,
    recipients: Vec<String>,
    recipient_parameters: Vec<Vec<String>>,
}

/// A message that is coming.
struct Incoming {
    id: String,
    path: PathBuf,
    /// `None` where messages are thrown away.
    file: Option<File>,
    size: u64,
    max_size: u64,
    bare_line_ends: bool,
}

impl Incoming {
    async fn begin(server: &Shared) -> io::Result<Self> {
        let id = {
            let mut log = server.log();
            log.ids += 1;
            format!("{:08X}", log.ids)
        };
        let path = server.folder.path().join(format!("{id}.eml"));
        let file = match server.settings.discard {
            true => None,
            false => Some(File::create(&path).await?),
        };
        let max_size = server.settings.max_size.unwrap_or(u64::MAX);
        Ok(Incoming { id, path, file, size: 0, max_size, bare_line_ends: false })
    }

    /// What is counted in the size already. tokio writes it on a thread of its own, while the next block is read.
    async fn write(&mut self, block: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) if self.size <= self.max_size => file.write_all(block).await,
            _ => Ok(()),
        }
    }

    async fn discard(self) -> io::Result<()> {
        if self.file.is_some() {
            tokio::fs::remove_file(&self.path).await?;
        }
        Ok(())
    }
}

/// Talks to one client until either has had enough.
pub(super) async fn serve(stream: Box<dyn Stream>, server: Arc<Shared>) {
    let number = {
        let mut log = server.log();
        log.sessions.push(Session { is_open: true, ..Session::default() });
        log.sessions.len() - 1
    };
    let conversation = Conversation {
        server: server.clone(),
        number,
        stream,
        input: BytesMut::new(),
        output: Vec::new(),
        is_new_group: true,
        tls: None,
        channels: Vec::new(),
        helo: None,
        is_extended: false,
        login: None,
        transaction: None,
        mails: 0,
        incoming: None,
    };
    let end = conversation.run().await;
    let mut log = server.log();
    log.sessions[number].is_open = false;
    log.sessions[number].failure = end.err().map(|error| error.to_string());
}

impl Conversation {
    async fn run(mut self) -> io::Result<()> {
        if self.server.settings.security == Security::Implicit {
            self = self.handshake().await?;
        }
        let greeting = if self.is_lmtp() { "220 localhost LMTP envoi" } else { "220 localhost ESMTP envoi" };
        self.reply(greeting);
        while let Some(line) = self.line().await? {
            let line = match line {
                Ok(line) => line,
                Err(reply) => {
                    self.record("<unreadable>");
                    self.reply(reply);
                    continue;
                }
            };
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let verb = verb.to_ascii_uppercase();
            let shown = match argument.split_once(' ') {
                Some((mechanism, _)) if verb == "AUTH" => format!("AUTH {mechanism} <secret>"),
                _ => line.clone(),
            };
            self.record(&shown);
            // Its bytes come in any case.
            if verb != "BDAT"
                && let Some(reply) = self.other_answer(&shown)
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
                    if let Some(refusal) = self.refusal_of_tls(argument) {
                        self.reply(refusal);
                    } else if !self.input.is_empty() {
                        // What came in clear must not be taken for what was said inside TLS (RFC 3207, 4.2).
                        self.reply("554 5.5.0 Commands behind STARTTLS are not taken");
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
                "BDAT" if self.offers_also("CHUNKING") => {
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
                "EXPN" | "ETRN" | "TURN" | "BDAT" => self.reply("502 5.5.1 Command not implemented"),
                _ => self.reply("500 5.5.2 Command not recognised"),
            }
        }
        self.flush().await?;
        // The client may have gone without waiting: that is no failure.
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// Everything learnt in clear is forgotten (RFC 3207, 4.2).
    async fn handshake(self) -> io::Result<Self> {
        // rustls asks the stream for 4 KiB at a time.
        let stream = BufReader::with_capacity(BLOCK, self.stream);
        let tls = self.server.tls.accept(stream).await?;
        let version = tls.get_ref().1.protocol_version().and_then(|version| version.as_str());
        let version = version.map(|name| name.replace("TLSv1_", "TLSv1."));
        self.server.log().sessions[self.number].tls = version.clone();
        let mut channels = vec![ChannelBinding::tls_server_end_point(self.server.end_point.clone())];
        if tls.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            let exported = tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""));
            channels.push(ChannelBinding::tls_exporter(exported.map_err(io::Error::other)?));
        }
        Ok(Conversation {
            stream: Box::new(tls),
            tls: version,
            channels,
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
        for keyword in ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "PRDR", "STARTTLS", "AUTH"]
        {
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
        let offered = self.server.settings.offered.iter().filter(|line| self.offers_also(first_word(line)));
        lines.extend(offered.cloned());
        for (i, line) in lines.iter().enumerate() {
            let separator = if i + 1 == lines.len() { ' ' } else { '-' };
            self.output.extend_from_slice(format!("250{separator}{line}\r\n").as_bytes());
        }
    }

    /// An extension that the server was told to offer.
    fn offers_also(&self, keyword: &str) -> bool {
        let is_offered = self.server.settings.offered.iter().any(|line| first_word(line).eq_ignore_ascii_case(keyword));
        // RFC 8689, 2: only inside TLS.
        is_offered && (self.tls.is_some() || !keyword.eq_ignore_ascii_case("REQUIRETLS"))
    }

    fn is_lmtp(&self) -> bool {
        self.server.settings.protocol == Protocol::Lmtp
    }

    /// A limit that the server was told to offer (RFC 9422).
    fn limit(&self, name: &str) -> Option<usize> {
        let mut lines = self.server.settings.offered.iter().filter(|line| first_word(line) == "LIMITS");
        lines.find_map(|line| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok()))
    }

    fn offers_tls(&self) -> bool {
        self.server.settings.security == Security::StartTls && self.tls.is_none() && self.server.offers("STARTTLS")
    }

    fn offers_auth(&self) -> bool {
        !self.offered_mechanisms().is_empty()
    }

    fn refusal_of_tls(&self, argument: &str) -> Option<&'static str> {
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

    fn mail(&mut self, argument: &str) -> &'static str {
        let settings = &self.server.settings;
        if self.helo.is_none() {
            return "503 5.5.1 Say EHLO or HELO first";
        }
        if settings.require_login && self.login.is_none() {
            return "530 5.7.0 Authentication required";
        }
        if self.transaction.is_some() {
            return "503 5.5.1 Sender already given";
        }
        let Some((path, parameters)) = path(argument, "FROM:") else {
            return "501 5.5.4 Syntax: MAIL FROM:<address>";
        };
        let mut transaction = Transaction {
            reverse_path: (!path.is_empty()).then(|| path.to_string()),
            parameters: parameters.clone().map(String::from).collect(),
            ..Transaction::default()
        };
        for parameter in parameters {
            let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match keyword.to_ascii_uppercase().as_str() {
                _ if !self.is_extended => return "555 5.5.4 Parameters need EHLO",
                "SIZE" if self.server.offers("SIZE") => match (value.parse::<u64>(), settings.max_size) {
                    (Err(_), _) => return "501 5.5.4 SIZE is not a number",
                    (Ok(size), Some(max)) if size > max => return "552 5.3.4 Message size exceeds fixed limit",
                    _ => {}
                },
                "BODY" if value.eq_ignore_ascii_case("BINARYMIME") && self.offers_also("BINARYMIME") => {}
                "BODY" if self.server.offers("8BITMIME") => {
                    if !["7BIT", "8BITMIME"].iter().any(|body| value.eq_ignore_ascii_case(body)) {
                        return "501 5.5.4 BODY is neither 7BIT nor 8BITMIME";
                    }
                }
                "PRDR" if value.is_empty() && settings.prdr => transaction.is_prdr = true,
                "SMTPUTF8" if value.is_empty() && self.server.offers("SMTPUTF8") => transaction.is_utf8 = true,
                "AUTH" if self.offers_auth() => {}
                "RET" if self.offers_also("DSN") && matches!(value, "FULL" | "HDRS") => {}
                "ENVID" if self.offers_also("DSN") && is_xtext(value) && value.len() <= 100 => {}
                "BY" if self.offers_also("DELIVERBY") => {}
                "HOLDFOR" | "HOLDUNTIL" if self.offers_also("FUTURERELEASE") => {}
                "MT-PRIORITY" if self.offers_also("MT-PRIORITY") => {}
                "REQUIRETLS" if self.offers_also("REQUIRETLS") && value.is_empty() => {}
                _ => return "555 5.5.4 Unsupported parameter",
            }
        }
        if !path.is_empty() && !is_mailbox(path) {
            return "501 5.1.7 Bad sender address syntax";
        }
        if !path.is_ascii() && !transaction.is_utf8 {
            return "550 5.6.7 A non-ASCII address needs SMTPUTF8";
        }
        if self.limit("MAILMAX").is_some_and(|max| self.mails >= max) {
            return "452 4.5.3 Too many messages";
        }
        self.mails += 1;
        self.transaction = Some(transaction);
        "250 2.1.0 Ok"
    }

    fn rcpt(&mut self, argument: &str) -> Cow<'static, str> {
        let offers_dsn = self.offers_also("DSN");
        let (rcpt_max, domain_max) = (self.limit("RCPTMAX"), self.limit("RCPTDOMAINMAX"));
        let Some(transaction) = &mut self.transaction else {
            return "503 5.5.1 Say MAIL first".into();
        };
        let Some((path, parameters)) = path(argument, "TO:") else {
            return "501 5.5.4 Syntax: RCPT TO:<address>".into();
        };
        for parameter in parameters.clone() {
            match parameter.split_once('=') {
                Some(("NOTIFY", value)) if offers_dsn && value.parse::<Notify>().is_ok() => {}
                Some(("ORCPT", value)) if offers_dsn && value.contains(';') && is_xtext(value) => {}
                _ => return "555 5.5.4 Unsupported parameter".into(),
            }
        }
        // RFC 5321, 4.1.1.3: this one has no domain.
        if !is_mailbox(path) && !path.eq_ignore_ascii_case("postmaster") {
            return "501 5.1.3 Bad recipient address syntax".into();
        }
        if !path.is_ascii() && !transaction.is_utf8 {
            return "550 5.6.7 A non-ASCII address needs SMTPUTF8".into();
        }
        let refused = &self.server.settings.refused;
        if let Some((_, reply)) = refused.iter().find(|(address, _)| address.eq_ignore_ascii_case(path)) {
            return reply.clone().into();
        }
        let domain = |address: &str| address.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let domains: HashSet<String> =
            transaction.recipients.iter().map(String::as_str).chain([path]).map(domain).collect();
        if rcpt_max.is_some_and(|max| transaction.recipients.len() >= max)
            || domain_max.is_some_and(|max| domains.len() > max)
        {
            return "452 4.5.3 Too many recipients".into();
        }
        transaction.recipients.push(path.to_string());
        transaction.recipient_parameters.push(parameters.map(String::from).collect());
        "250 2.1.5 Ok".into()
    }

    /// The replies to the message, or the one that refuses to take one.
    async fn data(&mut self, argument: &str) -> io::Result<Vec<Cow<'static, str>>> {
        if !argument.is_empty() {
            return Ok(vec!["501 5.5.4 DATA has no parameter".into()]);
        }
        let Some(transaction) = self.transaction.take_if(|transaction| !transaction.recipients.is_empty()) else {
            return Ok(vec![match self.transaction {
                // RFC 2033, 4.2.
                Some(_) if self.is_lmtp() => "503 5.5.1 No valid recipients".into(),
                Some(_) => "554 5.5.1 No valid recipients".into(),
                None => "503 5.5.1 Say MAIL and RCPT first".into(),
            }]);
        };
        if transaction.parameters.iter().any(|parameter| parameter.eq_ignore_ascii_case("BODY=BINARYMIME")) {
            // RFC 3030, 3.
            return Ok(vec!["503 5.5.1 BINARYMIME goes by BDAT".into()]);
        }
        self.reply("354 End data with <CR><LF>.<CR><LF>");

        let mut incoming = Incoming::begin(&self.server).await?;
        let mut decoder = Decoder::default();
        let mut block = Vec::new();
        loop {
            self.fill_for(incoming.size).await?;
            let before = block.len();
            let end = decoder.decode(&self.input, &mut block);
            self.input.advance(end.unwrap_or(self.input.len()));
            incoming.size += (block.len() - before) as u64;
            if block.len() >= BLOCK || end.is_some() {
                incoming.write(&block).await?;
                block.clear();
            }
            if end.is_some() {
                break;
            }
        }
        incoming.bare_line_ends = decoder.bare_line_ends;
        self.end_message(transaction, incoming).await
    }

    /// A chunk (RFC 3030), whose bytes are read whatever becomes of it: the replies to it, and to the message, if it is the last.
    async fn chunk(&mut self, command: &str, argument: &str) -> io::Result<Vec<Cow<'static, str>>> {
        let (size, last) = argument.split_once(' ').unwrap_or((argument, ""));
        let (Ok(size), true) = (size.parse::<u64>(), last.is_empty() || last.eq_ignore_ascii_case("LAST")) else {
            return Ok(vec!["501 5.5.4 Syntax: BDAT size [LAST]".into()]);
        };
        let has_recipients = self.transaction.as_ref().is_some_and(|transaction| !transaction.recipients.is_empty());
        let mut incoming = match self.incoming.take() {
            None if has_recipients => Some(Incoming::begin(&self.server).await?),
            before => before,
        };
        let mut left = size;
        while left > 0 {
            self.fill_for(incoming.as_ref().map_or(0, |incoming| incoming.size)).await?;
            let here = self.input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = self.input.split_to(here);
            left -= here as u64;
            if let Some(incoming) = &mut incoming {
                incoming.size += here as u64;
                incoming.write(&piece).await?;
            }
        }
        let is_too_large = |incoming: &Incoming| incoming.size > incoming.max_size;
        let refusal = match (self.other_answer(command), &incoming) {
            (Some(other), _) if other.starts_with('2') && last.is_empty() => {
                self.incoming = incoming;
                return Ok(vec![other.into()]);
            }
            (Some(other), _) => Some(other),
            (None, None) if self.transaction.is_some() => Some("554 5.5.1 No valid recipients".into()),
            (None, None) => Some("503 5.5.1 Say MAIL and RCPT first".into()),
            (None, Some(incoming)) if is_too_large(incoming) && last.is_empty() => {
                Some("552 5.3.4 Message size exceeds fixed limit".into())
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            if let Some(incoming) = incoming {
                incoming.discard().await?;
            }
            self.drop_transaction();
            return Ok(vec![refusal.into()]);
        }
        match (self.transaction.take(), incoming) {
            (Some(transaction), Some(incoming)) if !last.is_empty() => self.end_message(transaction, incoming).await,
            (transaction, incoming) => {
                (self.transaction, self.incoming) = (transaction, incoming);
                Ok(vec![format!("250 2.0.0 {size} octets received").into()])
            }
        }
    }

    /// Something of a message is there; so much of it came before.
    async fn fill_for(&mut self, size: u64) -> io::Result<()> {
        if self.input.is_empty() && !self.fill().await? {
            let message = format!("the client closed after {size} bytes of a message");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(())
    }

    fn drop_transaction(&mut self) {
        (self.transaction, self.incoming) = (None, None);
    }

    /// The replies to a message that has come whole.
    async fn end_message(
        &mut self,
        transaction: Transaction,
        mut incoming: Incoming,
    ) -> io::Result<Vec<Cow<'static, str>>> {
        if let Some(file) = &mut incoming.file {
            file.flush().await?;
        }
        self.record(".");
        let refusal = match self.other_answer(".") {
            None if incoming.size > incoming.max_size => Some("552 5.3.4 Message size exceeds fixed limit".into()),
            other => other,
        };
        if let Some(refusal) = refusal {
            incoming.discard().await?;
            // It refuses each in the same way, unless it does so line by line.
            let for_each =
                if self.is_lmtp() && refusal.lines().count() == 1 { transaction.recipients.len() } else { 1 };
            return Ok(vec![refusal.into(); for_each]);
        }
        let (replies, recipients) = self.verdicts(&transaction, &incoming.id);
        if recipients.is_empty() {
            incoming.discard().await?;
            return Ok(replies);
        }
        let parameters = transaction.recipients.iter().zip(transaction.recipient_parameters);
        let recipient_parameters =
            parameters.filter(|(to, _)| recipients.contains(to)).map(|(_, parameters)| parameters).collect();
        self.server.log().messages.push(Captured {
            id: incoming.id,
            connection: self.number,
            helo: self.helo.clone().unwrap_or_default(),
            tls: self.tls.clone(),
            login: self.login.clone(),
            reverse_path: transaction.reverse_path,
            parameters: transaction.parameters,
            recipients,
            recipient_parameters,
            size: incoming.size,
            bare_line_ends: incoming.bare_line_ends,
            path: incoming.path,
            _folder: self.server.folder.clone(),
        });
        self.server.arrived.notify_waiters();
        Ok(replies)
    }

    /// What is said of a message that can be taken, and those whom it is taken for.
    fn verdicts(&self, transaction: &Transaction, id: &str) -> (Vec<Cow<'static, str>>, Vec<String>) {
        let refusal = |recipient: &String| {
            let mut refused = self.server.settings.refused_messages.iter();
            refused.find(|(address, _)| address.eq_ignore_ascii_case(recipient)).map(|(_, reply)| reply)
        };
        let taken = || Cow::from(format!("250 2.0.0 Ok: queued as {id}"));
        let recipients = &transaction.recipients;
        let is_block = transaction.is_prdr && recipients.len() > 1;
        if !self.is_lmtp() && !is_block {
            return match recipients.iter().find_map(refusal) {
                Some(reply) => (vec![reply.clone().into()], Vec::new()),
                None => (vec![taken()], recipients.clone()),
            };
        }
        let mut replies: Vec<_> =
            recipients.iter().map(|to| refusal(to).map_or_else(taken, |reply| reply.clone().into())).collect();
        let taken_for: Vec<_> = recipients.iter().filter(|to| refusal(to).is_none()).cloned().collect();
        if is_block {
            replies.insert(0, "353 The answers for each recipient follow".into());
            replies.push(if taken_for.is_empty() { "550 5.7.1 Refused for all recipients".into() } else { taken() });
        }
        (replies, taken_for)
    }

    /// The next line without its CRLF, or what to reply where it is none; `None` at the end of the stream.
    async fn line(&mut self) -> io::Result<Option<Result<String, &'static str>>> {
        let mut searched = 0;
        let mut is_too_long = false;
        let end = loop {
            if let Some(found) = memchr(b'\n', &self.input[searched..]) {
                break searched + found;
            }
            if self.input.len() > LINE_LIMIT {
                is_too_long = true;
                self.input.clear();
            }
            searched = self.input.len();
            if !self.fill().await? {
                return Ok(None);
            }
        };
        let line = self.input.split_to(end + 1);
        if is_too_long || line.len() > LINE_LIMIT {
            return Ok(Some(Err("500 5.5.2 Line too long")));
        }
        Ok(Some(match line.strip_suffix(b"\r\n") {
            None => Err("500 5.5.2 Line ends with LF alone"),
            Some(line) if line.iter().any(u8::is_ascii_control) => Err("500 5.5.2 Control character in a command"),
            Some(line) => String::from_utf8(line.to_vec()).map_err(|_| "500 5.5.2 Neither ASCII nor UTF-8"),
        }))
    }

    /// Reads what is there, after the client has been told what it waits for. `false` at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.input.reserve(BLOCK);
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.is_new_group = true;
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await?;
            self.output.clear();
        }
        Ok(())
    }

    /// A reply with a code of RFC 3463 in it, which is left out where its extension is.
    fn reply(&mut self, reply: &str) {
        let has_codes = self.server.offers("ENHANCEDSTATUSCODES");
        for line in reply.lines() {
            let is_code =
                |word: &str| word.split('.').count() == 3 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'.'));
            match line.get(4..).and_then(|rest| rest.split_once(' ')) {
                Some((word, text)) if !has_codes && is_code(word) => {
                    self.output.extend_from_slice(&line.as_bytes()[..4]);
                    self.output.extend_from_slice(text.as_bytes());
                }
                _ => self.output.extend_from_slice(line.as_bytes()),
            }
            self.output.extend_from_slice(b"\r\n");
        }
    }

    fn other_answer(&self, command: &str) -> Option<String> {
        self.server.settings.answer.as_ref().and_then(|answer| answer(command))
    }

    fn record(&mut self, command: &str) {
        let groups = &mut self.server.log().sessions[self.number].groups;
        if std::mem::take(&mut self.is_new_group) || groups.is_empty() {
            groups.push(Vec::new());
        }
        if let Some(group) = groups.last_mut() {
            group.push(command.to_string());
        }
    }
}

/// `FROM:<path> parameters` → the path, without its brackets, and the parameters.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, impl Iterator<Item = &'a str> + Clone)> {
    let (start, rest) = argument.split_at_checked(keyword.len())?;
    if !start.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest.strip_prefix('<')?;
    let mut in_quotes = false;
    let mut is_escaped = false;
    let end = rest.find(|c| {
        let is_end = c == '>' && !in_quotes;
        in_quotes ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && in_quotes && !is_escaped;
        is_end
    })?;
    let parameters = &rest[end + 1..];
    (parameters.is_empty() || parameters.starts_with(' ')).then(|| (&rest[..end], parameters.split_ascii_whitespace()))
}

/// RFC 3461, 4: printable ASCII without `=`, and two upper-case hexadecimal digits behind each `+`.
fn is_xtext(text: &str) -> bool {
    let is_hex = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'A'..=b'F');
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=')
        && text.split('+').skip(1).all(|rest| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(is_hex)))
}

fn first_word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn is_mailbox(path: &str) -> bool {
    path.rsplit_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains(' '))
}
