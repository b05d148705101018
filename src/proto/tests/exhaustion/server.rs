//! A small model of a server that keeps to the RFCs. It reads what the client writes, fails the
//! test where a command is out of order, and gives the reply that the walk chooses.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::{CONTENT_END, Configuration, Framing, Kind};
use crate::proto::Phase;

/// What kind of reply the server gives to the command that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// 2xx, or the go-ahead 354.
    Yes,
    /// 5xx.
    No,
    /// 353 to a message (PRDR), or a challenge (334).
    Continue,
    /// 500: the command is not known.
    Unknown,
    /// 421.
    Shutdown,
}

/// A command that was received whole and is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Received {
    Connection,
    Hello,
    Helo,
    StartTls,
    Auth {
        lines: usize,
    },
    Mail(usize),
    Rcpt(usize, usize),
    Data(usize),
    /// The final dot, or the last chunk.
    End(usize),
    /// A chunk that is not the last one.
    Chunk(usize),
    /// The final dot of an empty message, for which no recipient was accepted.
    EmptyMessage,
    Rset,
    Noop,
    Quit,
}

/// What the bytes that come next are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    Commands,
    Message(usize),
    Chunk {
        message: usize,
        left: usize,
        last: bool,
    },
}

/// An answer of the server to a command of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    pub line: String,
    pub yes: bool,
    pub shutdown: bool,
}

/// What the server received and answered of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// PRDR was asked for.
    prdr: bool,
    /// Each recipient is answered for before the message is.
    pub each: bool,
    mail: Option<Answer>,
    rcpts: Vec<Answer>,
    data: Option<Answer>,
    chunk_refusal: Option<Answer>,
    /// The answers to the message for one recipient each.
    pub results: Vec<Answer>,
    /// The answer to the message.
    last: Option<Answer>,
    content: Vec<u8>,
    /// The last byte was received.
    pub whole: bool,
}

/// What came of a message, by what the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    Accepted(String),
    Rejected(Phase, String),
    Open,
}

/// What the machine must report of a reply, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum News {
    Login(String),
    Sender(String),
    Recipient(usize, String),
    Result(usize, String),
    Reply(String),
}

pub struct Server {
    configuration: Configuration,
    mode: Mode,
    /// A command line, or a message with DATA, as far as it was received.
    buffer: Vec<u8>,
    pub todo: VecDeque<Received>,
    /// A transaction is open, by the answers given so far, or may be after a refused chunk.
    open: Option<usize>,
    /// The answer to the newest MAIL was negative, so the rest of its group is refused.
    refused_mail: bool,
    /// A chunk was refused: only RSET is sure to end the transaction (RFC 3030, 2).
    needs_rset: bool,
    pub records: Vec<Record>,
    /// What the machine has to report and has not, and whether 421 excuses it.
    pub news: VecDeque<(News, bool)>,
    /// A reply of which the first half was sent.
    pub half: Option<(Class, String)>,
    secure: bool,
    /// The next line answers a challenge; how many there were.
    challenged: Option<usize>,
    /// The caller asked for the next RSET itself.
    pub reset_asked: bool,
    pub said_421: bool,
    /// 421 came before a command was received that it could answer.
    pub unasked_421: bool,
    pub closed: bool,
}

impl Server {
    pub fn new(configuration: Configuration) -> Self {
        Server {
            configuration,
            mode: Mode::Commands,
            buffer: Vec::new(),
            todo: VecDeque::from([Received::Connection]),
            open: None,
            refused_mail: false,
            needs_rset: false,
            records: Vec::new(),
            news: VecDeque::new(),
            half: None,
            secure: false,
            challenged: None,
            reset_asked: false,
            said_421: false,
            unasked_421: false,
            closed: false,
        }
    }

    /// What distinguishes this state from others, of a session whose first messages are settled.
    pub fn hash(&self, settled: usize, hasher: &mut impl Hasher) {
        let Server {
            configuration: _,
            mode,
            buffer,
            todo,
            open,
            refused_mail,
            needs_rset,
            records,
            news,
            half,
            secure,
            challenged,
            reset_asked,
            said_421,
            unasked_421,
            closed,
        } = self;
        (mode, buffer, todo, open, refused_mail, needs_rset).hash(hasher);
        (records.len(), records.get(settled..), news, half).hash(hasher);
        (
            secure,
            challenged,
            reset_asked,
            said_421,
            unasked_421,
            closed,
        )
            .hash(hasher);
    }

    /// The TLS handshake was made.
    pub fn upgraded(&mut self) {
        self.secure = true;
    }

    // ---- What it receives ----

    /// How many bytes of the client's output end the command, the message or the chunk that is
    /// being received; all of them if they do not.
    pub fn unit(&self, output: &[u8]) -> usize {
        let end = match self.mode {
            Mode::Chunk { left, .. } => left,
            Mode::Commands => find(output, b"\n").map_or(usize::MAX, |at| at + 1),
            Mode::Message(_) => {
                let all = [&self.buffer[..], output].concat();
                find(&all, CONTENT_END)
                    .map_or(usize::MAX, |at| at + CONTENT_END.len() - self.buffer.len())
            }
        };
        end.min(output.len())
    }

    /// The newest message of whose end a byte was received: of the final dot, or of the last BDAT.
    pub fn last_end(&self) -> Option<usize> {
        match self.mode {
            Mode::Chunk { message, last, .. } if last => Some(message),
            _ => self.records.iter().rposition(|record| record.whole),
        }
    }

    /// What comes next is of a message.
    pub fn is_in_message(&self) -> bool {
        self.mode != Mode::Commands
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        assert!(!self.said_421, "nothing is written after 421");
        match &mut self.mode {
            Mode::Chunk {
                message,
                left,
                last,
            } => {
                let (message, last) = (*message, *last);
                assert!(bytes.len() <= *left);
                *left -= bytes.len();
                self.records[message].content.extend_from_slice(bytes);
                if *left == 0 {
                    self.end_chunk(message, last);
                }
            }
            Mode::Message(message) => {
                let message = *message;
                self.buffer.extend_from_slice(bytes);
                if let Some(end) = find(&self.buffer, CONTENT_END) {
                    assert_eq!(end + CONTENT_END.len(), self.buffer.len());
                    let text = String::from_utf8(self.buffer[2..end + 2].to_vec()).unwrap();
                    // The dots that were doubled.
                    let text = text.replace("\r\n..", "\r\n.");
                    self.buffer.clear();
                    self.mode = Mode::Commands;
                    let is_unwanted = self.accepted(message).is_empty();
                    let record = &mut self.records[message];
                    record.content = text.into_bytes();
                    if is_unwanted {
                        assert!(
                            record.content.is_empty(),
                            "a message that no recipient gets"
                        );
                        self.todo.push_back(Received::EmptyMessage);
                    } else {
                        record.whole = true;
                        self.check_content(message);
                        self.todo.push_back(Received::End(message));
                    }
                }
            }
            Mode::Commands => {
                if self.buffer.is_empty() {
                    self.check_group();
                }
                self.buffer.extend_from_slice(bytes);
                if let Some(line) = self.buffer.strip_suffix(b"\r\n") {
                    let line = String::from_utf8(line.to_vec()).unwrap();
                    self.buffer.clear();
                    self.command(&line);
                }
            }
        }
    }

    /// A command may follow others that are not answered (RFC 2920, 3.1).
    fn check_group(&self) {
        if self.todo.is_empty() {
            assert!(self.half.is_none(), "a command before the reply was whole");
            return;
        }
        assert!(self.configuration.pipelining, "a group without PIPELINING");
        assert!(
            !matches!(
                self.todo.back(),
                Some(
                    Received::Hello
                        | Received::Helo
                        | Received::StartTls
                        | Received::Auth { .. }
                        | Received::Data(_)
                        | Received::Noop
                        | Received::Quit
                )
            ),
            "{:?} is the last command of its group",
            self.todo.back()
        );
    }

    fn command(&mut self, line: &str) {
        if let Some(lines) = self.challenged.take() {
            self.todo.push_back(Received::Auth { lines });
            return;
        }
        let numbers: Vec<usize> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect();
        let received = match line.split([' ', ':']).next().unwrap() {
            "EHLO" | "LHLO" => Received::Hello,
            "HELO" => Received::Helo,
            "STARTTLS" => {
                assert!(!self.secure);
                Received::StartTls
            }
            "AUTH" => Received::Auth { lines: 0 },
            "MAIL" => {
                let message = numbers[0];
                assert_eq!(message, self.records.len(), "each MAIL once, in order");
                self.records.push(Record {
                    prdr: line.ends_with(" PRDR"),
                    ..Record::default()
                });
                Received::Mail(message)
            }
            "RCPT" => Received::Rcpt(numbers[0], numbers[1]),
            "DATA" => Received::Data(self.records.len() - 1),
            "BDAT" => {
                let message = self.records.len() - 1;
                let last = line.ends_with(" LAST");
                self.mode = Mode::Chunk {
                    message,
                    left: numbers[0],
                    last,
                };
                if numbers[0] == 0 {
                    self.end_chunk(message, last);
                }
                return;
            }
            "RSET" => Received::Rset,
            "NOOP" => Received::Noop,
            "QUIT" => Received::Quit,
            _ => panic!("a command that was not asked for: {line}"),
        };
        self.todo.push_back(received);
    }

    fn end_chunk(&mut self, message: usize, last: bool) {
        self.mode = Mode::Commands;
        if last {
            self.records[message].whole = true;
            self.check_content(message);
            self.todo.push_back(Received::End(message));
        } else {
            self.todo.push_back(Received::Chunk(message));
        }
    }

    fn check_content(&self, message: usize) {
        let expected = self.configuration.pieces(message).concat();
        assert_eq!(
            String::from_utf8_lossy(&self.records[message].content),
            expected,
            "the message as it was given, once"
        );
    }

    // ---- What it answers ----

    /// The classes of replies that may come now.
    pub fn choices(&self) -> Vec<Class> {
        use Class::{Continue, No, Shutdown, Unknown, Yes};
        if self.closed || self.half.is_some() {
            return Vec::new();
        }
        let refused_mail = self.refused_mail || self.needs_rset;
        let Some(front) = self.todo.front() else {
            return match self.mode {
                _ if self.said_421 => vec![],
                // It refuses a message that it has not read whole, and closes.
                Mode::Message(message)
                    if self.buffer.len() > 2 && !self.accepted(message).is_empty() =>
                {
                    vec![No, Shutdown]
                }
                _ => vec![Shutdown],
            };
        };
        match *front {
            Received::Connection | Received::StartTls => vec![Yes, No, Shutdown],
            Received::Hello => vec![Yes, No, Unknown, Shutdown],
            Received::Helo => vec![Yes, No],
            Received::Auth { lines: 2 } => vec![Yes, No, Shutdown],
            Received::Auth { .. } => vec![Continue, No, Shutdown],
            Received::Mail(_) => vec![Yes, No, Shutdown],
            Received::Rcpt(..) if refused_mail => vec![No, Shutdown],
            Received::Rcpt(..) => vec![Yes, No, Shutdown],
            // RFC 2920, 3.1 lets it ask for a message though no recipient was accepted; RFC 2033,
            // 4.2 does not.
            Received::Data(message)
                if self.accepted(message).is_empty()
                    && (refused_mail || self.configuration.kind == Kind::Lmtp) =>
            {
                vec![No, Shutdown]
            }
            Received::Data(_) => vec![Yes, No, Shutdown],
            Received::Chunk(message) | Received::End(message)
                if refused_mail || self.accepted(message).is_empty() =>
            {
                vec![No, Shutdown]
            }
            Received::End(message) => {
                let record = &self.records[message];
                let first = !record.each && record.results.is_empty();
                if record.prdr && first {
                    vec![Yes, No, Continue, Shutdown]
                } else {
                    vec![Yes, No, Shutdown]
                }
            }
            Received::Chunk(_) => vec![Yes, No, Shutdown],
            Received::EmptyMessage | Received::Noop => vec![Yes, No, Shutdown],
            Received::Rset => vec![Yes, Shutdown],
            Received::Quit => vec![Yes],
        }
    }

    /// The reply, without what it does: that comes when it was sent whole.
    pub fn reply(&self, class: Class) -> String {
        if class == Class::Shutdown {
            return "421 bye".to_owned();
        }
        let text = match self.todo.front() {
            Some(Received::Hello) if class == Class::Yes => return self.offers(),
            Some(Received::End(message)) => {
                format!("m{message} end {}", self.records[*message].results.len())
            }
            Some(front) => format!("{front:?}").to_lowercase(),
            None => "too long".to_owned(),
        };
        let code = match (self.todo.front(), class) {
            (Some(Received::Connection | Received::StartTls), Class::Yes) => 220,
            (Some(Received::Auth { .. }), Class::Yes) => 235,
            (Some(Received::Auth { .. }), Class::Continue) => 334,
            (Some(Received::Data(_)), Class::Yes) => 354,
            (Some(Received::Quit), Class::Yes) => 221,
            (_, Class::Yes) => 250,
            (_, Class::Continue) => 353,
            (_, Class::Unknown) => 500,
            _ => 550,
        };
        format!("{code} {text}")
    }

    fn offers(&self) -> String {
        let mut offers = vec!["250-server"];
        let configuration = &self.configuration;
        if configuration.pipelining {
            offers.push("250-PIPELINING");
        }
        if configuration.framing != Framing::Data {
            offers.push("250-CHUNKING");
        }
        if configuration.framing == Framing::Chunks {
            offers.push("250-BINARYMIME");
        }
        if configuration.kind == Kind::Prdr {
            offers.push("250-PRDR");
        }
        if configuration.session && !self.secure {
            offers.push("250-STARTTLS");
        }
        if configuration.session && self.secure {
            offers.push("250-AUTH LOGIN");
        }
        offers.push("250 HELP");
        offers.join("\r\n")
    }

    /// This reply was sent whole.
    pub fn answered(&mut self, class: Class, line: String) {
        let answer = Answer {
            line: line.clone(),
            yes: matches!(class, Class::Yes | Class::Continue),
            shutdown: class == Class::Shutdown,
        };
        self.said_421 |= answer.shutdown;
        let Some(front) = self.todo.front().copied() else {
            self.unasked_421 |= answer.shutdown;
            if let (Mode::Message(message), false) = (self.mode, answer.shutdown) {
                self.records[message].chunk_refusal = Some(answer);
                self.closed = true;
            }
            return;
        };
        self.todo.pop_front();
        let (yes, excused) = (answer.yes, answer.shutdown);
        match front {
            Received::Connection | Received::Hello | Received::Helo | Received::StartTls => {}
            Received::Auth { lines } => {
                if class == Class::Continue {
                    // The next line is the response.
                    self.challenged = Some(lines + 1);
                } else {
                    self.news.push_back((News::Login(line), excused));
                }
            }
            Received::Mail(message) => {
                assert!(self.open.is_none(), "MAIL in an open transaction");
                self.refused_mail = !yes;
                self.open = yes.then_some(message);
                self.records[message].mail = Some(answer);
                self.news.push_back((News::Sender(line), excused));
            }
            Received::Rcpt(message, index) => {
                assert!(
                    self.refused_mail || self.open == Some(message),
                    "RCPT without MAIL"
                );
                let record = &mut self.records[message];
                assert_eq!(record.rcpts.len(), index, "each RCPT once, in order");
                record.rcpts.push(answer);
                self.news.push_back((News::Recipient(index, line), excused));
            }
            Received::Data(message) => {
                assert!(
                    self.refused_mail || self.open == Some(message),
                    "DATA without MAIL"
                );
                self.records[message].data = Some(answer);
                if yes {
                    self.mode = Mode::Message(message);
                    self.buffer = b"\r\n".to_vec();
                }
            }
            Received::Chunk(message) => {
                if !yes {
                    self.needs_rset |= self.open.is_some();
                    self.records[message].chunk_refusal.get_or_insert(answer);
                }
            }
            Received::End(message) => self.answered_message(message, class, answer),
            Received::EmptyMessage => self.open = None,
            Received::Rset => {
                self.open = None;
                self.needs_rset = false;
                self.refused_mail = false;
                if self.reset_asked {
                    self.news.push_back((News::Reply(line), excused));
                    self.reset_asked = false;
                }
            }
            Received::Noop => self.news.push_back((News::Reply(line), excused)),
            Received::Quit => self.closed = true,
        }
    }

    fn answered_message(&mut self, message: usize, class: Class, answer: Answer) {
        let lmtp = self.configuration.kind == Kind::Lmtp;
        let accepted = self.accepted(message);
        let record = &mut self.records[message];
        if class == Class::Continue {
            record.each = true;
            self.todo.push_front(Received::End(message));
            return;
        }
        // The last chunk of a message that was refused before is for no recipient.
        let is_over = record.chunk_refusal.is_some();
        let for_one = (lmtp || record.each) && !is_over && record.results.len() < accepted.len();
        if for_one {
            let index = accepted[record.results.len()];
            let news = News::Result(index, answer.line.clone());
            // With PRDR, the recipients have the message with the last reply.
            if lmtp || !answer.yes {
                self.news.push_back((news, answer.shutdown));
            }
            record.results.push(answer);
            if record.each || record.results.len() < accepted.len() {
                self.todo.push_front(Received::End(message));
                return;
            }
        } else {
            if answer.yes {
                for (index, result) in accepted.iter().zip(&record.results) {
                    if result.yes {
                        self.news
                            .push_back((News::Result(*index, result.line.clone()), false));
                    }
                }
            }
            record.last = Some(answer);
        }
        let refused = class != Class::Yes;
        if self.configuration.framing != Framing::Data && refused && !for_one {
            self.needs_rset |= self.open.is_some();
        } else {
            self.open = None;
        }
    }

    // ---- What is true ----

    /// The recipients that were accepted.
    pub fn accepted(&self, message: usize) -> Vec<usize> {
        let rcpts = self
            .records
            .get(message)
            .map_or(&[][..], |record| &record.rcpts);
        (0..rcpts.len()).filter(|index| rcpts[*index].yes).collect()
    }

    /// No command of this message waits for an answer.
    pub fn is_answered(&self, message: usize) -> bool {
        !self.todo.iter().any(|received| match received {
            Received::Mail(m)
            | Received::Rcpt(m, _)
            | Received::Data(m)
            | Received::Chunk(m)
            | Received::End(m) => *m == message,
            _ => false,
        })
    }

    /// What came of a message to so many recipients.
    pub fn truth(&self, message: usize, recipients: usize) -> Truth {
        let Some(record) = self.records.get(message) else {
            return Truth::Open;
        };
        let rejected = |phase, answer: &Answer| Truth::Rejected(phase, answer.line.clone());
        if let Some(mail) = record.mail.as_ref().filter(|mail| !mail.yes) {
            return rejected(Phase::Mail, mail);
        }
        let refused = record.rcpts.iter().rfind(|answer| !answer.yes);
        let none = record.rcpts.len() == recipients && record.rcpts.iter().all(|rcpt| !rcpt.yes);
        if let Some(refused) = refused
            && (none || self.configuration.all_or_nothing)
        {
            return rejected(Phase::Rcpt, refused);
        }
        if let Some(data) = record.data.as_ref().filter(|data| !data.yes) {
            return rejected(Phase::Data, data);
        }
        if let Some(refusal) = &record.chunk_refusal {
            let whole = refusal.shutdown && record.whole;
            return rejected(if whole { Phase::EndOfData } else { Phase::Body }, refusal);
        }
        let all_results = record.results.len() == self.accepted(message).len();
        let taken = record.results.iter().rfind(|result| result.yes);
        match (&record.last, record.results.last()) {
            // With PRDR, 421 does not say what became of the message.
            (Some(last), Some(_)) if last.shutdown && taken.is_some() => Truth::Open,
            (Some(last), Some(result)) if (last.yes || last.shutdown) && taken.is_none() => {
                rejected(Phase::EndOfData, result)
            }
            (Some(last), _) if last.yes => Truth::Accepted(last.line.clone()),
            (Some(last), _) => rejected(Phase::EndOfData, last),
            (None, Some(result)) if all_results => match taken {
                Some(_) if record.each => Truth::Open,
                Some(taken) => Truth::Accepted(taken.line.clone()),
                None => rejected(Phase::EndOfData, result),
            },
            _ => Truth::Open,
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
