//! Receives a message with DATA or BDAT, writes it to a file, and replies to it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use bytes::Buf;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::transaction::Transaction;
use super::{BLOCK, PART, ServerSession};
use crate::testing::body::Decoder;
use crate::testing::builder::Checks;
use crate::testing::fault::{Moment, Step};
use crate::testing::record::MessageFile;
use crate::testing::{ReceivedMessage, Shared};

/// A message that is being received.
pub(super) struct Incoming {
    id: String,
    /// `None` if messages are discarded.
    file: Option<File>,
    /// Dropped after the open file.
    stored: MessageFile,
    size: u64,
    max_size: u64,
    bare_line_ends: bool,
    checks: Checks,
    has_eight_bit: bool,
    has_long_line: bool,
    /// The length of the incomplete line.
    line: usize,
}

/// The maximum length of a line without its CRLF (RFC 5321, 4.5.3.1.6).
const LONGEST_LINE: usize = 998;

impl Incoming {
    async fn begin(server: &Shared) -> io::Result<Self> {
        let id = {
            let mut log = server.log();
            log.ids += 1;
            format!("{:08X}", log.ids)
        };
        let stored = MessageFile::new(server.folder.clone(), &id);
        let file = match server.settings.discard {
            true => None,
            false => Some(File::create(stored.path()).await?),
        };
        let max_size = server.settings.max_size.unwrap_or(u64::MAX);
        Ok(Incoming {
            id,
            file,
            stored,
            size: 0,
            max_size,
            bare_line_ends: false,
            checks: server.settings.checks,
            has_eight_bit: false,
            has_long_line: false,
            line: 0,
        })
    }

    /// Writes a block that `size` already includes. tokio writes it on another thread while the
    /// next block is read.
    async fn write(&mut self, block: &[u8]) -> io::Result<()> {
        self.has_eight_bit |= self.checks.eight_bit && !block.is_ascii();
        if self.checks.line_length {
            let mut lines = block.split(|byte| *byte == b'\n');
            let rest = lines.next_back().unwrap_or_default();
            for line in lines {
                // Its CR is not counted.
                self.has_long_line |= self.line + line.len() > LONGEST_LINE + 1;
                self.line = 0;
            }
            self.line += rest.len();
            self.has_long_line |= self.line > LONGEST_LINE + 1;
        }
        match &mut self.file {
            Some(file) if self.size <= self.max_size => file.write_all(block).await,
            _ => Ok(()),
        }
    }

    /// The refusal by the requested checks, if one fails.
    fn refusal(&self, transaction: &Transaction) -> Option<&'static str> {
        let declares = |wanted: &str| {
            transaction
                .parameters
                .iter()
                .any(|given| given.eq_ignore_ascii_case(wanted))
        };
        let is_binary = declares("BODY=BINARYMIME");
        let mut sizes = transaction.parameters.iter().filter_map(|given| {
            let (name, value) = given.split_once('=')?;
            name.eq_ignore_ascii_case("SIZE")
                .then(|| value.parse::<u64>().ok())?
        });
        if self.size > self.max_size {
            Some("552 5.3.4 Message size exceeds fixed limit")
        } else if self.checks.size && sizes.next().is_some_and(|declared| self.size > declared) {
            Some("552 5.3.4 Message is larger than MAIL declared")
        } else if self.has_eight_bit
            && !is_binary
            && !declares("BODY=8BITMIME")
            && !declares("SMTPUTF8")
        {
            Some("554 5.6.1 Bytes beyond ASCII without BODY=8BITMIME")
        } else if self.has_long_line && !is_binary {
            Some("554 5.6.0 A line is longer than 998 bytes")
        } else {
            None
        }
    }
}

impl ServerSession {
    /// Receives a message with DATA. Returns the replies to it, or the refusal of DATA.
    pub(super) async fn data(&mut self, argument: &str) -> io::Result<Vec<Cow<'static, str>>> {
        if !argument.is_empty() {
            return Ok(vec!["501 5.5.4 DATA has no parameter".into()]);
        }
        let Some(transaction) = self
            .transaction
            .take_if(|transaction| !transaction.recipients.is_empty())
        else {
            return Ok(vec![match self.transaction {
                // RFC 2033, 4.2.
                Some(_) if self.is_lmtp() => "503 5.5.1 No valid recipients".into(),
                Some(_) => "554 5.5.1 No valid recipients".into(),
                None => "503 5.5.1 Say MAIL and RCPT first".into(),
            }]);
        };
        if transaction
            .parameters
            .iter()
            .any(|parameter| parameter.eq_ignore_ascii_case("BODY=BINARYMIME"))
        {
            // RFC 3030, 3.
            return Ok(vec!["503 5.5.1 BINARYMIME needs BDAT".into()]);
        }
        self.reply("354 End data with <CR><LF>.<CR><LF>");

        let mut incoming = Incoming::begin(&self.server).await?;
        let mut decoder = Decoder::default();
        let mut block = Vec::new();
        let mut is_refused = false;
        loop {
            self.fill_for(incoming.size).await?;
            let before = block.len();
            let end = decoder.decode(&self.input, &mut block);
            self.input.advance(end.unwrap_or(self.input.len()));
            let size_before = incoming.size;
            incoming.size += (block.len() - before) as u64;
            let moment = Moment::Body(size_before, incoming.size);
            if let Some(reply) = self.message_fault(moment, &transaction).await? {
                self.record_turn(PART);
                if reply.starts_with("421") {
                    return Ok(vec![reply.into()]);
                }
                self.reply(&reply);
                is_refused = true;
            }
            if block.len() >= BLOCK || end.is_some() {
                incoming.write(&block).await?;
                block.clear();
            }
            if end.is_some() {
                break;
            }
        }
        incoming.bare_line_ends = decoder.bare_line_ends;
        if is_refused {
            self.record(".");
            return Ok(Vec::new());
        }
        self.end_message(transaction, incoming).await
    }

    /// Receives a chunk (RFC 3030), whose bytes are read even if it is refused. Returns the replies
    /// to it, and to the message if it is the last chunk.
    pub(super) async fn chunk(
        &mut self,
        command: &str,
        argument: &str,
    ) -> io::Result<Vec<Cow<'static, str>>> {
        let (size, last) = argument.split_once(' ').unwrap_or((argument, ""));
        let (Ok(size), true) = (
            size.parse::<u64>(),
            last.is_empty() || last.eq_ignore_ascii_case("LAST"),
        ) else {
            return Ok(vec!["501 5.5.4 Syntax: BDAT size [LAST]".into()]);
        };
        let has_recipients = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| !transaction.recipients.is_empty());
        let mut incoming = match self.incoming.take() {
            None if has_recipients => Some(Incoming::begin(&self.server).await?),
            before => before,
        };
        let mut left = size;
        let mut early_refusal = None;
        while left > 0 {
            self.fill_for(incoming.as_ref().map_or(0, |incoming| incoming.size))
                .await?;
            let here = self
                .input
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = self.input.split_to(here);
            left -= here as u64;
            if let Some(incoming) = &mut incoming {
                let size_before = incoming.size;
                incoming.size += here as u64;
                incoming.write(&piece).await?;
                // Taken out for the call; a chunk without it is refused below.
                if let Some(transaction) = self.transaction.take() {
                    let moment = Moment::Body(size_before, incoming.size);
                    let reply = self.message_fault(moment, &transaction).await?;
                    self.transaction = Some(transaction);
                    early_refusal = early_refusal.or(reply);
                }
            }
        }
        let is_too_large = |incoming: &Incoming| incoming.size > incoming.max_size;
        let other = match early_refusal {
            None => self.other_reply(Moment::Command, command).await?,
            some => some,
        };
        let refusal = match (other, &incoming) {
            (Some(other), _) if other.starts_with('2') && last.is_empty() => {
                self.incoming = incoming;
                return Ok(vec![other.into()]);
            }
            (Some(other), _) => Some(other),
            (None, None) if self.transaction.is_some() => {
                Some("554 5.5.1 No valid recipients".into())
            }
            (None, None) => Some("503 5.5.1 Say MAIL and RCPT first".into()),
            (None, Some(incoming)) if is_too_large(incoming) && last.is_empty() => {
                Some("552 5.3.4 Message size exceeds fixed limit".into())
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.drop_transaction();
            return Ok(vec![refusal.into()]);
        }
        match (self.transaction.take(), incoming) {
            (Some(transaction), Some(incoming)) if !last.is_empty() => {
                self.end_message(transaction, incoming).await
            }
            (transaction, incoming) => {
                (self.transaction, self.incoming) = (transaction, incoming);
                Ok(vec![format!("250 2.0.0 {size} octets received").into()])
            }
        }
    }

    /// Waits for more bytes of a message, of which `size` have been received.
    async fn fill_for(&mut self, size: u64) -> io::Result<()> {
        if self.input.is_empty() && !self.fill().await? {
            let message = format!("the client closed after {size} bytes of a message");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        Ok(())
    }

    pub(super) fn drop_transaction(&mut self) {
        (self.transaction, self.incoming) = (None, None);
    }

    /// Refuses a command that is not allowed between the chunks of a message (RFC 3030, 2).
    pub(super) fn interrupt_chunks(&mut self) {
        self.drop_transaction();
        self.reply("503 5.5.1 Only BDAT or RSET may follow a chunk");
    }

    /// Makes the faults of a moment in a message, or at its end, occur.
    async fn message_fault(
        &mut self,
        moment: Moment,
        transaction: &Transaction,
    ) -> io::Result<Option<String>> {
        if self.server.faults().is_empty() {
            return Ok(None);
        }
        let from = transaction.reverse_path.iter();
        let addresses: Vec<&str> = from.chain(&transaction.recipients).map(|a| &**a).collect();
        self.fault(moment, &addresses.join(" ")).await
    }

    /// Returns the replies to a complete message.
    async fn end_message(
        &mut self,
        transaction: Transaction,
        mut incoming: Incoming,
    ) -> io::Result<Vec<Cow<'static, str>>> {
        if let Some(file) = &mut incoming.file {
            file.flush().await?;
        }
        self.record(".");
        let moment = Moment::At(Step::Message);
        let reply = self.message_fault(moment, &transaction).await?;
        let refusal = reply
            .or_else(|| self.answer("."))
            .or_else(|| incoming.refusal(&transaction).map(String::from));
        if let Some(refusal) = refusal {
            // A one-line refusal is repeated for each recipient in LMTP.
            let for_each = if self.is_lmtp() && refusal.lines().count() == 1 {
                transaction.recipients.len()
            } else {
                1
            };
            return Ok(vec![refusal.into(); for_each]);
        }
        let (replies, recipients) = self.final_replies(&transaction, &incoming.id);
        if recipients.is_empty() {
            return Ok(replies);
        }
        let accepted_for: HashSet<&String> = recipients.iter().collect();
        let parameters = transaction
            .recipients
            .iter()
            .zip(&transaction.recipient_parameters);
        let recipient_parameters = parameters
            .filter(|(to, _)| accepted_for.contains(to))
            .map(|(_, parameters)| parameters.clone())
            .collect();
        let message = ReceivedMessage {
            id: incoming.id,
            connection: self.number,
            helo: self.helo.clone().unwrap_or_default(),
            tls: self.tls.clone(),
            login: self.login.clone(),
            reverse_path: transaction.reverse_path.clone(),
            parameters: transaction.parameters.clone(),
            recipients,
            recipient_parameters,
            size: incoming.size,
            bare_line_ends: incoming.bare_line_ends,
            file: Arc::new(incoming.stored),
        };
        self.server.arrivals.push(message);
        let moment = Moment::At(Step::Accepted);
        Ok(match self.message_fault(moment, &transaction).await? {
            Some(reply) => vec![reply.into()],
            None => replies,
        })
    }

    /// The replies to an accepted message, and the recipients that it is accepted for.
    fn final_replies(
        &self,
        transaction: &Transaction,
        id: &str,
    ) -> (Vec<Cow<'static, str>>, Vec<String>) {
        let refusal = |recipient: &String| {
            let mut refused = self.server.settings.refused_messages.iter();
            refused
                .find(|(address, _)| address.eq_ignore_ascii_case(recipient))
                .map(|(_, reply)| reply)
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
        let mut replies: Vec<_> = recipients
            .iter()
            .map(|to| refusal(to).map_or_else(taken, |reply| reply.clone().into()))
            .collect();
        let accepted_for: Vec<_> = recipients
            .iter()
            .filter(|to| refusal(to).is_none())
            .cloned()
            .collect();
        if is_block {
            replies.insert(0, "353 Replies for each recipient follow".into());
            replies.push(if accepted_for.is_empty() {
                "550 5.7.1 Refused for all recipients".into()
            } else {
                taken()
            });
        }
        (replies, accepted_for)
    }
}
