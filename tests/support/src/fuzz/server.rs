//! A whole server that plays a script, against a client that means well: it logs in where that is
//! asked for, sends its messages, and quits. Whatever the server does, the session ends in bounded
//! steps, and each message has one outcome.
//!
//! What must hold at every turn is checked by the session that `machine` uses, too.

use arbitrary::{Arbitrary, Unstructured};
use envoi::proto::{ClientName, Content, Event, Mechanism, Settings, StartTls, Step, Transaction};
use envoi::{Address, Envelope};

use crate::session::{Observed, Session, Split, Wish, normalised};

/// More turns than any session here needs: behind the last one the server is gone.
const TURNS: usize = 40;

#[derive(Arbitrary, Debug)]
struct Script {
    tls: Tls,
    login: Option<Login>,
    auth_in_clear: bool,
    messages: [Message; 3],
    /// When the messages that wait for their hand-over are decided on, one after the other.
    decisions: [Decision; 3],
    /// How large chunks are, where that is not left as it is.
    chunk_size: Option<u8>,
    split: [u8; 3],
    turns: Vec<Turn>,
}

#[derive(Arbitrary, Debug)]
enum Tls {
    Never,
    IfOffered,
    Required,
    Implicit,
}

#[derive(Arbitrary, Debug)]
enum Login {
    Plain,
    Login,
}

#[derive(Arbitrary, Debug)]
struct Message {
    recipients: u8,
    /// The recipients' domains, a bit for each.
    domains: u8,
    all_or_nothing: bool,
    hand_over: bool,
    says_size: bool,
    content: Says,
    /// A bit for each of [`Wish::ALL`], all of which count only where the last bit is set.
    wishes: u32,
    text: [u8; 6],
}

#[derive(Arbitrary, Debug)]
enum Says {
    Nothing,
    Right,
    Binary,
}

/// What becomes of a message whose end is held back.
#[derive(Arbitrary, Debug)]
struct Decision {
    /// The number of rounds before it, in which the server may speak and others may begin.
    rounds: u8,
    withdraws: bool,
}

/// What the server does when it is its turn.
#[derive(Arbitrary, Debug)]
enum Turn {
    /// Answers everything that was said, as it should.
    Answers,
    /// Greets an EHLO, with these.
    Offers(Vec<Offer>),
    Says(Code, Text),
    SaysInLines(Code, [Text; 2], LineEnd),
    SaysBytes([u8; 8]),
    /// Takes only so many bytes of what the client has to say.
    Takes(u8),
    Closes,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Offer {
    Pipelining,
    StartTls,
    EightBitMime,
    Chunking,
    SmtpUtf8,
    Size(u16),
    Auth,
    OldAuth,
    Dsn,
    BinaryMime,
    Prdr,
    DeliverBy(Option<u16>),
    FutureRelease(Option<u16>),
    MtPriority,
    RequireTls,
    Limits {
        recipients: u8,
        domains: u8,
        messages: u8,
    },
    Unknown(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Code {
    Ready,
    Closing,
    LoggedIn,
    Ok,
    Challenge,
    GoAhead,
    NotAvailable,
    Busy,
    Full,
    Unknown,
    Denied,
    NoSuchUser,
    Failed,
    Any(u16),
}

impl Code {
    fn number(self) -> u16 {
        match self {
            Code::Ready => 220,
            Code::Closing => 221,
            Code::LoggedIn => 235,
            Code::Ok => 250,
            Code::Challenge => 334,
            Code::GoAhead => 354,
            Code::NotAvailable => 421,
            Code::Busy => 450,
            Code::Full => 452,
            Code::Unknown => 500,
            Code::Denied => 535,
            Code::NoSuchUser => 550,
            Code::Failed => 554,
            Code::Any(number) => number % 1000,
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Text {
    Nothing,
    Words,
    Enhanced,
    EnhancedOfAnotherClass,
    Base64,
    Bytes([u8; 3]),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum LineEnd {
    CrLf,
    Lf,
}

fn line(code: u16, mark: u8, text: Text, end: LineEnd) -> Vec<u8> {
    let class = code / 100;
    let text = match text {
        Text::Nothing => Vec::new(),
        Text::Words => b"as the script says".to_vec(),
        Text::Enhanced => format!("{class}.1.1 as the script says").into_bytes(),
        Text::EnhancedOfAnotherClass => format!("{}.7.1 no", class + 1).into_bytes(),
        Text::Base64 => b"VXNlcm5hbWU6".to_vec(),
        Text::Bytes(bytes) => bytes.to_vec(),
    };
    let end: &[u8] = match end {
        LineEnd::CrLf => b"\r\n",
        LineEnd::Lf => b"\n",
    };
    [format!("{code}").as_bytes(), &[mark], &text, end].concat()
}

/// The server's ears: what it was told and has not answered.
#[derive(Default)]
struct Ears {
    heard: usize,
    in_message: bool,
    in_login: bool,
    recipients: usize,
    /// MAIL asked for a reply for each recipient.
    prdr: bool,
}

impl Ears {
    /// The answer to each command that is there as a whole.
    fn answers(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        loop {
            let new = &wire[self.heard.min(wire.len())..];
            let Some(end) = new.windows(2).position(|pair| pair == b"\r\n") else {
                return said;
            };
            let line = &new[..end];
            let chunk = std::str::from_utf8(line)
                .ok()
                .and_then(|line| line.strip_prefix("BDAT "));
            let size = chunk
                .and_then(|rest| rest.split(' ').next())
                .and_then(|size| size.parse().ok())
                .unwrap_or(0);
            if new.len() < end + 2 + size {
                return said;
            }
            self.heard += end + 2 + size;
            let answer: &[u8] = match line {
                b"." if self.in_message => {
                    self.in_message = false;
                    said.extend(self.final_replies());
                    continue;
                }
                _ if self.in_message => continue,
                _ if line.ends_with(b" LAST") => {
                    said.extend(self.final_replies());
                    continue;
                }
                b"DATA" => {
                    self.in_message = true;
                    b"354 Go ahead\r\n"
                }
                b"AUTH LOGIN" => {
                    self.in_login = true;
                    b"334 VXNlcm5hbWU6\r\n"
                }
                _ if self.in_login => {
                    self.in_login = false;
                    b"334 UGFzc3dvcmQ6\r\n"
                }
                b"STARTTLS" => b"220 Go ahead\r\n",
                b"QUIT" => b"221 Bye\r\n",
                _ if line.starts_with(b"AUTH PLAIN") => b"235 Welcome\r\n",
                _ => {
                    if line.starts_with(b"MAIL ") {
                        (self.recipients, self.prdr) =
                            (0, line.windows(5).any(|word| word == b" PRDR"));
                    }
                    self.recipients += usize::from(line.starts_with(b"RCPT "));
                    b"250 Ok\r\n"
                }
            };
            said.extend_from_slice(answer);
        }
    }

    /// To a message for several recipients, one for each where that was asked for: the first one
    /// does not get it.
    fn final_replies(&self) -> Vec<u8> {
        if !self.prdr || self.recipients < 2 {
            return b"250 2.0.0 Ok: queued\r\n".to_vec();
        }
        let others = "250 2.0.0 Ok\r\n".repeat(self.recipients);
        format!("353 One by one\r\n552 5.2.2 Full\r\n{others}").into_bytes()
    }
}

impl Turn {
    /// What is said; `None` where nothing more will be.
    fn play(&self, session: &Session, ears: &mut Ears) -> Option<Vec<u8>> {
        match self {
            Turn::Answers if session.wire.is_empty() => {
                Some(b"220 mail.example.org ESMTP\r\n".to_vec())
            }
            Turn::Answers => Some(ears.answers(&session.wire)),
            Turn::Offers(offers) => {
                // It answers what was said, whatever that was.
                ears.heard = session.wire.len();
                Some(offer(offers))
            }
            Turn::Says(code, text) => Some(line(code.number(), b' ', *text, LineEnd::CrLf)),
            Turn::SaysInLines(code, [first, last], end) => {
                let code = code.number();
                Some(
                    [
                        line(code, b'-', *first, *end),
                        line(code, b' ', *last, *end),
                    ]
                    .concat(),
                )
            }
            Turn::SaysBytes(bytes) => Some(bytes.to_vec()),
            Turn::Takes(_) => Some(Vec::new()),
            Turn::Closes => None,
        }
    }
}

fn offer(offers: &[Offer]) -> Vec<u8> {
    let mut said = String::from("250-mail.example.org\r\n");
    for offer in offers.iter().take(12) {
        let keyword = match offer {
            Offer::Pipelining => "PIPELINING".into(),
            Offer::StartTls => "STARTTLS".into(),
            Offer::EightBitMime => "8BITMIME".into(),
            Offer::Chunking => "CHUNKING".into(),
            Offer::SmtpUtf8 => "SMTPUTF8".into(),
            Offer::Size(limit) => format!("SIZE {limit}"),
            Offer::Auth => "AUTH PLAIN LOGIN".into(),
            Offer::OldAuth => "AUTH=LOGIN PLAIN".into(),
            Offer::Dsn => "DSN".into(),
            Offer::BinaryMime => "CHUNKING\r\n250-BINARYMIME".into(),
            Offer::Prdr => "PRDR".into(),
            Offer::DeliverBy(min) => format!(
                "DELIVERBY {}",
                min.map(|min| min.to_string()).unwrap_or_default()
            ),
            Offer::FutureRelease(max) => {
                let max = max.map(|max| format!("{max} 2000-02-29T{:02}:00:00Z", max % 24));
                format!("FUTURERELEASE {}", max.unwrap_or_default())
            }
            Offer::MtPriority => "MT-PRIORITY MIXER".into(),
            Offer::RequireTls => "REQUIRETLS".into(),
            Offer::Limits {
                recipients,
                domains,
                messages,
            } => {
                format!(
                    "LIMITS RCPTMAX={} RCPTDOMAINMAX={} MAILMAX={}",
                    recipients % 4,
                    domains % 3,
                    messages % 4
                )
            }
            Offer::Unknown(number) => format!("X-{number}"),
        };
        said.push_str(&format!("250-{keyword}\r\n"));
    }
    said.push_str("250 HELP\r\n");
    said.into_bytes()
}

// ---- The client ----

fn settings(script: &Script) -> Settings {
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.auth_in_clear = script.auth_in_clear;
    settings.chunk_size = script.chunk_size.map_or(settings.chunk_size, usize::from);
    match script.tls {
        Tls::Never => settings.starttls = StartTls::Never,
        Tls::IfOffered => settings.starttls = StartTls::IfOffered,
        Tls::Required => settings.starttls = StartTls::Required,
        Tls::Implicit => settings.secure = true,
    }
    settings
}

fn transaction(message: &Message) -> Transaction {
    let address = |n: u8| {
        let domain = if message.domains & 1 << n == 0 {
            "example.com"
        } else {
            "example.org"
        };
        Address::new(format!("user{n}@{domain}")).unwrap()
    };
    let recipients = (0..=message.recipients % 4).map(address);
    let mut transaction = Transaction::new(&Envelope::new(address(7), recipients).unwrap());
    transaction.all_or_nothing = message.all_or_nothing;
    transaction.hand_over = message.hand_over;
    transaction.content = match (&message.content, message.text.is_ascii()) {
        (Says::Nothing, _) => Content::Unknown,
        (Says::Right, true) => Content::SevenBit,
        (Says::Right, false) => Content::EightBit,
        (Says::Binary, _) => Content::Binary,
    };
    let size = if transaction.content == Content::Binary {
        6
    } else {
        normalised(&message.text).len() as u64
    };
    transaction.size = message.says_size.then_some(size);
    transaction
}

/// What is asked for with it, beyond taking it.
fn wishes(message: &Message) -> Vec<Wish> {
    let is_set = |n: usize| message.wishes & 1 << n != 0;
    Wish::ALL
        .into_iter()
        .enumerate()
        .filter(|(n, _)| is_set(31) && is_set(*n))
        .map(|(_, wish)| wish)
        .collect()
}

fn play(script: &Script) -> Vec<Observed> {
    let lengths = script
        .split
        .iter()
        .map(|length| 1 + usize::from(length % 32))
        .collect();
    let mut session = Session::new(settings(script), Split::AndAnswered(lengths));
    let mut ears = Ears::default();
    let mut turns = script.turns.iter().take(TURNS);
    let mut messages = script.messages.iter();
    let (mut login, mut current, mut quits) = (script.login.as_ref(), None, false);
    let mut decisions = script.decisions.iter();
    let mut rounds_awaited = 0;
    // Each round plays a turn of the server's, or does one thing of the client's: a login, three
    // messages with their beginning, text, end and hand-over, and the farewell.
    for _ in 0..TURNS + 16 {
        if session.awaits_permission() {
            let decision = decisions.as_slice().first();
            let decision = decision.expect("each message is decided on once");
            if rounds_awaited < decision.rounds % 8 {
                rounds_awaited += 1;
            } else {
                (rounds_awaited, _) = (0, decisions.next());
                match decision.withdraws {
                    true => session.withdraw(),
                    false => session.hand_over(),
                }
                continue;
            }
        }
        match session.want {
            Step::Closed => return session.conclude().0,
            Step::Upgrade => session.upgraded(),
            Step::Body { .. } => match current.take() {
                Some(text) => session.body(text),
                None => session.finish(),
            },
            Step::Ready if quits => session.quit(),
            Step::Ready => match (login.take(), messages.next()) {
                (Some(Login::Plain), _) => session.login(Mechanism::Plain),
                (Some(Login::Login), _) => session.login(Mechanism::Login),
                (None, Some(message)) => {
                    current = Some(&message.text[..]);
                    session.begin(transaction(message), &wishes(message));
                }
                (None, None) => quits = true,
            },
            _ => {
                let turn = turns.next().unwrap_or(&Turn::Closes);
                session.take(if let Turn::Takes(most) = turn {
                    usize::from(*most)
                } else {
                    usize::MAX
                });
                match turn.play(&session, &mut ears) {
                    Some(said) => session.feed(&said),
                    None => session.end(),
                }
            }
        }
    }
    panic!("the session does not end: it wants {:?}", session.want);
}

pub fn check(data: &[u8]) {
    let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let events = play(&script);
    let outcomes = events.iter().filter(|event| {
        matches!(
            event,
            Observed::Step(Step::Event(
                Event::Accepted { .. } | Event::Rejected { .. } | Event::Withdrawn
            ))
        )
    });
    assert!(outcomes.count() <= script.messages.len());
}
