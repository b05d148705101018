//! Whole sessions: a server that answers as it was told, well or badly, and a client that sends messages.
//! However the server's bytes are cut, the same happens.

use std::collections::VecDeque;

use envoi::proto::{ClientName, Content, Mechanism, Protocol, RawCommand, Settings, StartTls, Step, Transaction};
use envoi::{Address, Envelope, Phase};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::session::{Cut, Event, Session, Wish, normalised};

/// A session before it is played.
#[derive(Clone, Debug)]
struct Plan {
    protocol: Protocol,
    starttls: StartTls,
    secure: bool,
    auth_in_clear: bool,
    mechanism: Option<Mechanism>,
    /// Where a message goes in several.
    chunk_size: usize,
    messages: Vec<Message>,
    /// In clear, and inside TLS.
    offers: [Offer; 2],
    /// Of the greeting and of each command. Behind the last one, the server answers as it should.
    answers: Vec<Answer>,
    /// The server says 354 also where it accepted no recipient.
    always_goes_ahead: bool,
    /// The client waits until the server closes, and does not give up before.
    is_patient: bool,
}

#[derive(Clone, Debug)]
struct Message {
    recipients: Vec<Address>,
    wishes: Vec<Wish>,
    all_or_nothing: bool,
    content: Content,
    is_size_known: bool,
    step_by_step: bool,
    pieces: Vec<Vec<u8>>,
    /// What the server says when so many pieces went: it need not wait for the end. Behind all
    /// pieces means: before the last byte went.
    early: Option<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct Offer {
    pipelining: bool,
    starttls: bool,
    eight_bit: bool,
    others: Vec<&'static str>,
}

#[derive(Clone, Debug)]
enum Answer {
    Apt,
    InLines(usize),
    /// With another code than it should.
    Code(u16),
    Bytes(Vec<u8>),
    /// As it should, with this behind it.
    Behind(Vec<u8>),
    /// Closes without a word.
    Gone,
}

// ---- The server ----

struct Server<'a> {
    plan: &'a Plan,
    answers: std::slice::Iter<'a, Answer>,
    reads: Reads,
    read: usize,
    is_secure: bool,
    accepted: usize,
    /// MAIL asked for a reply for each recipient.
    prdr: bool,
    is_gone: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Reads {
    Commands,
    Responses,
    Message,
}

impl<'a> Server<'a> {
    fn new(plan: &'a Plan) -> Self {
        Server {
            plan,
            answers: plan.answers.iter(),
            reads: Reads::Commands,
            read: 0,
            is_secure: plan.secure,
            accepted: 0,
            prdr: false,
            is_gone: false,
        }
    }

    /// What it says to what has come since it was last asked.
    fn answer(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        while !self.is_gone {
            let new = &wire[self.read..];
            let (end, replies) = if self.reads == Reads::Message {
                // The line end before the dot may be that of DATA.
                let from = self.read - 2;
                let Some(found) = wire[from..].windows(5).position(|bytes| bytes == b"\r\n.\r\n") else { break };
                (found + 3, self.final_replies())
            } else {
                let Some(found) = new.windows(2).position(|pair| pair == b"\r\n") else { break };
                let command = std::str::from_utf8(&new[..found]).expect("commands are text");
                let end = found + 2 + size_of_chunk(command);
                if end > new.len() {
                    break;
                }
                (end, self.apt(command))
            };
            let is_recipient = new.starts_with(b"RCPT");
            let asked_for_data = self.reads == Reads::Commands && new.starts_with(b"DATA\r\n");
            let is_login = self.reads == Reads::Responses || new.starts_with(b"AUTH");
            self.read += end;
            let answer: Vec<u8> = replies.into_iter().flat_map(|apt| self.say(apt)).collect();
            self.accepted += usize::from(is_recipient && answer.starts_with(b"2"));
            self.reads = match answer.first() {
                Some(b'3') if asked_for_data => Reads::Message,
                Some(b'3') if is_login => Reads::Responses,
                _ => Reads::Commands,
            };
            said.extend_from_slice(&answer);
        }
        said
    }

    fn say(&mut self, mut apt: Vec<String>) -> Vec<u8> {
        if self.is_gone {
            return Vec::new();
        }
        let mut behind = Vec::new();
        match self.answers.next().unwrap_or(&Answer::Apt) {
            Answer::Apt => {}
            Answer::InLines(more) => (0..*more).for_each(|n| apt.push(format!("{} line {n}", &apt[0][..3]))),
            Answer::Code(code) => apt = vec![format!("{code} {}.1.1 as the plan says", code / 100)],
            Answer::Bytes(bytes) => return bytes.clone(),
            Answer::Behind(bytes) => behind = bytes.clone(),
            Answer::Gone => {
                self.is_gone = true;
                return Vec::new();
            }
        }
        let last = apt.len() - 1;
        for line in &mut apt[..last] {
            line.replace_range(3..4, "-");
        }
        self.is_gone = apt[last].starts_with("421");
        let mut said: Vec<u8> =
            apt.into_iter().flat_map(|line| line.into_bytes().into_iter().chain(*b"\r\n")).collect();
        said.extend_from_slice(&behind);
        said
    }

    /// The replies to a message that came whole.
    fn final_replies(&self) -> Vec<Vec<String>> {
        let taken = vec!["250 2.0.0 Ok: queued".to_owned()];
        let for_each = vec![taken.clone(); self.accepted];
        match self.plan.protocol {
            Protocol::Lmtp => for_each,
            Protocol::Smtp if self.prdr && self.accepted > 1 => {
                [vec![vec!["353 One by one".to_owned()]], for_each, vec![taken]].concat()
            }
            Protocol::Smtp => vec![taken],
        }
    }

    fn apt(&mut self, command: &str) -> Vec<Vec<String>> {
        let verb = command.split(' ').next().unwrap_or_default();
        let line = match (self.reads, verb) {
            (Reads::Responses, "*") => "501 5.7.0 Login given up",
            (Reads::Responses, _) if command == "c3VibWl0dGVyIzc=" => "334 UGFzc3dvcmQ6",
            (Reads::Responses, _) => "235 2.7.0 Welcome",
            (_, "EHLO" | "LHLO") => return vec![self.offer()],
            (_, "HELO") => "250 mail.example.org",
            (_, "STARTTLS") => "220 2.0.0 Go ahead",
            (_, "AUTH") if command == "AUTH LOGIN" => "334 VXNlcm5hbWU6",
            (_, "AUTH") => "235 2.7.0 Welcome",
            (_, "MAIL") => {
                (self.accepted, self.prdr) = (0, command.split(' ').any(|word| word == "PRDR"));
                "250 2.1.0 Ok"
            }
            (_, "RCPT") => "250 2.1.5 Ok",
            (_, "DATA") if self.accepted > 0 || self.plan.always_goes_ahead => "354 End with a dot",
            (_, "BDAT") if self.accepted > 0 && command.ends_with(" LAST") => return self.final_replies(),
            (_, "BDAT") if self.accepted > 0 => "250 2.0.0 Ok: a chunk",
            (_, "DATA" | "BDAT") => "503 5.5.1 Nobody to send it to",
            (_, "QUIT") => "221 2.0.0 Bye",
            _ => "250 2.0.0 Ok",
        };
        vec![vec![line.to_owned()]]
    }

    fn offer(&self) -> Vec<String> {
        let offer = &self.plan.offers[usize::from(self.is_secure)];
        let known = [(offer.pipelining, "PIPELINING"), (offer.starttls, "STARTTLS"), (offer.eight_bit, "8BITMIME")];
        let known = known.into_iter().filter_map(|(offered, keyword)| offered.then_some(keyword));
        let lines = ["mail.example.org greets"].into_iter().chain(known).chain(offer.others.iter().copied());
        lines.map(|line| format!("250 {line}")).collect()
    }
}

/// A chunk comes behind its command (RFC 3030).
fn size_of_chunk(command: &str) -> usize {
    let size = command.strip_prefix("BDAT ").map(|rest| rest.strip_suffix(" LAST").unwrap_or(rest));
    size.map_or(0, |size| size.parse().expect("BDAT has a size"))
}

// ---- The client ----

enum Task {
    Login(Mechanism),
    Noop,
    Command,
    Begin(usize),
    Mail(usize),
    Rcpt(Address),
    Data,
    Reset,
    Quit,
}

fn tasks(plan: &Plan) -> VecDeque<Task> {
    let mut tasks = VecDeque::from_iter(plan.mechanism.map(Task::Login));
    for (index, message) in plan.messages.iter().enumerate() {
        if message.step_by_step {
            tasks.push_back(Task::Mail(index));
            tasks.extend(message.recipients.iter().cloned().map(Task::Rcpt));
            tasks.extend([Task::Data, Task::Reset]);
        } else {
            tasks.push_back(Task::Begin(index));
        }
    }
    tasks.extend([Task::Noop, Task::Command, Task::Quit]);
    tasks
}

/// Two of one domain, then others.
fn address(index: usize) -> Address {
    let domain = ["example.com", "example.com", "example.org", "ex\u{e4}mple.com"][index];
    Address::new(format!("user{index}@{domain}")).unwrap()
}

fn transaction(message: &Message) -> Transaction {
    let mut transaction = if message.step_by_step {
        Transaction::open(Some(address(0)))
    } else {
        Transaction::new(&Envelope::new(None, message.recipients.clone()).unwrap())
    };
    transaction.all_or_nothing = message.all_or_nothing;
    transaction.content = message.content;
    let text = message.pieces.concat();
    let size = if message.content == Content::Binary { text.len() } else { normalised(&text).len() };
    transaction.size = message.is_size_known.then_some(size as u64);
    transaction
}

fn play(plan: &Plan, cut: Cut) -> (Vec<Event>, Vec<u8>) {
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.protocol = plan.protocol;
    settings.starttls = plan.starttls;
    settings.secure = plan.secure;
    settings.auth_in_clear = plan.auth_in_clear;
    // More than one good reply has, and less than all those of a session.
    settings.limits.reply_bytes = 700;
    // A message has not more of them than the rounds below can play.
    let largest = plan.messages.iter().map(|message| message.pieces.concat().len()).max();
    settings.chunk_size = plan.chunk_size.max(largest.unwrap_or_default() / 100);
    let mut session = Session::new(settings, cut);
    let mut server = Server::new(plan);
    let mut tasks = tasks(plan);
    let (mut current, mut given) = (0, 0);

    let greeting = server.say(vec!["220 mail.example.org ESMTP".into()]);
    session.feed(&greeting);
    for _ in 0..1000 {
        session.take(usize::MAX);
        let said = server.answer(&session.wire);
        session.feed(&said);
        if server.is_gone {
            session.end();
        }
        match session.want {
            Step::Closed => return session.conclude(),
            // The server may have more to say before anything is done.
            _ if !said.is_empty() => {}
            // What it said was no answer, and no more comes.
            Step::Wait { .. } if session.waiting() == 0 && plan.is_patient => session.end(),
            Step::Wait { .. } if session.waiting() == 0 => session.abort(),
            Step::Wait { .. } => {}
            Step::Upgrade => {
                session.upgraded();
                server.is_secure = true;
            }
            Step::Body { .. } => {
                let message = &plan.messages[current];
                match &message.early {
                    Some((at, said)) if *at == given => {
                        if given == message.pieces.len() {
                            session.finish();
                            session.take(session.waiting().saturating_sub(1));
                        }
                        session.feed(said);
                    }
                    _ if given == message.pieces.len() => session.finish(),
                    _ => session.body(&message.pieces[given]),
                }
                given += 1;
            }
            _ => match tasks.pop_front() {
                None => return session.conclude(),
                Some(Task::Login(mechanism)) => session.login(mechanism),
                Some(Task::Noop) => session.noop(),
                Some(Task::Command) => session.command(&RawCommand::new("VRFY you").unwrap()),
                Some(Task::Begin(index)) => {
                    (current, given) = (index, 0);
                    session.begin(transaction(&plan.messages[index]), &plan.messages[index].wishes);
                }
                Some(Task::Mail(index)) => {
                    (current, given) = (index, 0);
                    session.mail(transaction(&plan.messages[index]), &plan.messages[index].wishes);
                }
                Some(Task::Rcpt(address)) => session.rcpt(address),
                Some(Task::Data) => session.data(),
                Some(Task::Reset) => session.reset(),
                Some(Task::Quit) => session.quit(),
            },
        }
    }
    panic!("the session does not end");
}

// ---- Plans ----

fn bytes_of_a_server() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("250 2.0.0 Ok\r\n"),
        Just("354 Go ahead\r\n"),
        Just("220 2.0.0 Go ahead\r\n"),
        Just("334 \r\n"),
        Just("550 5.1.1 No\r\n"),
        Just("421 4.3.2 Bye\r\n"),
        Just("250-half of it\r\n"),
        Just("250 no carriage return\n"),
        Just("552 5.3.4 Too big\r\n452 4.3.1 Full\r\n"),
        Just("* OK IMAP4rev1\r\n"),
        Just("250"),
        Just("\r\n"),
        Just(""),
    ];
    prop_oneof![
        6 => vec(line, 1..3).prop_map(|lines| lines.concat().into_bytes()),
        1 => vec(any::<u8>(), 1..40),
        // Past the limit of a line, and of all that may be unread.
        1 => prop_oneof![16_000usize..20_000, Just(90_000)].prop_map(|length| [b"250 ".to_vec(), vec![b'x'; length]].concat()),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let code = prop_oneof![
        4 => prop::sample::select(vec![421, 450, 452, 454, 500, 502, 503, 504, 530, 535, 550, 552, 554]),
        2 => prop::sample::select(vec![220, 221, 235, 250, 251, 252, 334, 354]),
        1 => 200u16..600,
    ];
    prop_oneof![
        60 => Just(Answer::Apt),
        4 => (1usize..4).prop_map(Answer::InLines),
        4 => code.prop_map(Answer::Code),
        1 => bytes_of_a_server().prop_map(Answer::Bytes),
        1 => bytes_of_a_server().prop_map(Answer::Behind),
        1 => Just(Answer::Gone),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    let others = vec![
        "AUTH PLAIN LOGIN",
        "AUTH=PLAIN LOGIN",
        "auth login",
        "SIZE 1000",
        "SIZE",
        "CHUNKING",
        "PRDR",
        "ENHANCEDSTATUSCODES",
        "X-Novelty  one two ",
        "",
        "BINARYMIME",
        "SMTPUTF8",
        "DSN",
        "DELIVERBY",
        "FUTURERELEASE 7200 2030-01-01T00:00:00Z",
        "MT-PRIORITY MIXER",
        "REQUIRETLS",
        "limits RCPTMAX=2 MAILMAX=2",
        "LIMITS RCPTDOMAINMAX=1",
    ];
    (any::<bool>(), prop::bool::weighted(0.8), prop::bool::weighted(0.8), prop::sample::subsequence(others, 0..=19))
        .prop_map(|(pipelining, starttls, eight_bit, others)| Offer { pipelining, starttls, eight_bit, others })
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text =
        prop::sample::select(vec!["Subject: x\r\n", "\r\n", ".", "..", "\r", "\n", "text", "\r\n.\r\n", "h\u{e4}", ""]);
    prop_oneof![
        8 => vec(text, 0..5).prop_map(|parts| parts.concat().into_bytes()),
        1 => (4000usize..6000).prop_map(|length| b".line\r\n".iter().copied().cycle().take(length).collect()),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let content = prop_oneof![
        1 => Just(Content::SevenBit),
        1 => Just(Content::EightBit),
        1 => Just(Content::Binary),
        2 => Just(Content::Unknown),
    ];
    let recipients = vec((0usize..4).prop_map(address), 1..5);
    let wishes = prop_oneof![2 => Just(Vec::new()), 1 => prop::sample::subsequence(Wish::ALL.to_vec(), 1..6)];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.3));
    (recipients, wishes, content, flags, vec(piece(), 0..4)).prop_flat_map(
        |(recipients, wishes, content, (all_or_nothing, is_size_known, step_by_step), pieces)| {
            option::weighted(0.2, (0..=pieces.len(), bytes_of_a_server())).prop_map(move |early| Message {
                recipients: recipients.clone(),
                wishes: wishes.clone(),
                all_or_nothing,
                content,
                is_size_known,
                step_by_step,
                pieces: pieces.clone(),
                early,
            })
        },
    )
}

fn plan() -> impl Strategy<Value = Plan> {
    let starttls = prop_oneof![
        1 => Just(StartTls::Never),
        2 => Just(StartTls::IfOffered),
        2 => Just(StartTls::Required),
    ];
    let mechanism = option::of(prop_oneof![Just(Mechanism::Plain), Just(Mechanism::Login)]);
    let protocol = prop_oneof![3 => Just(Protocol::Smtp), 1 => Just(Protocol::Lmtp)];
    let starttls = (protocol, starttls);
    let settings = (starttls, prop::bool::weighted(0.2), any::<bool>(), mechanism, any::<[bool; 2]>());
    (settings, 1usize..30, vec(message(), 1..4), [offer(), offer()], vec(answer(), 0..24)).prop_map(
        |(
            ((protocol, starttls), secure, auth_in_clear, mechanism, [always_goes_ahead, is_patient]),
            chunk_size,
            messages,
            offers,
            answers,
        )| {
            Plan {
                protocol,
                starttls,
                secure,
                auth_in_clear,
                mechanism,
                chunk_size,
                messages,
                offers,
                answers,
                always_goes_ahead,
                is_patient,
            }
        },
    )
}

/// What all that can be wished for needs.
const FOR_WISHES: [&str; 6] =
    ["AUTH PLAIN LOGIN", "DSN", "DELIVERBY 240", "FUTURERELEASE 7200", "MT-PRIORITY", "REQUIRETLS"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_same_happens_however_the_bytes_are_cut(plan in plan(), lengths in vec(1usize..40, 1..6)) {
        let (events, wire) = play(&plan, Cut::Nowhere);
        for cut in [Cut::Everywhere, Cut::Into(lengths.clone())] {
            let (cut_events, cut_wire) = play(&plan, cut);
            prop_assert_eq!(&cut_events, &events);
            prop_assert!(cut_wire == wire, "the same bytes go");
        }
        // What is answered in between may have gone before the session fails, and changes nothing else.
        let (cut_events, cut_wire) = play(&plan, Cut::AndAnswered(lengths));
        prop_assert_eq!(&cut_events, &events);
        prop_assert!(cut_wire.starts_with(&wire), "the same bytes go first");
    }

    #[test]
    fn a_server_that_does_all_right_gets_every_message(mut plan in plan(), lengths in vec(1usize..40, 1..6)) {
        plan.answers.retain(|answer| matches!(answer, Answer::Apt | Answer::InLines(_)));
        let has_tls = plan.secure || plan.starttls != StartTls::Never;
        for message in &mut plan.messages {
            message.early = None;
            message.wishes.retain(|wish| has_tls || *wish != Wish::RequireTls);
        }
        let is_binary = plan.messages.iter().any(|message| message.content == Content::Binary);
        let is_special = plan.messages.iter().any(|message| !message.wishes.is_empty());
        for offer in &mut plan.offers {
            (offer.starttls, offer.eight_bit) = (true, true);
            offer.others.retain(|keyword| *keyword != "SIZE 1000" && !keyword.to_uppercase().starts_with("LIMITS"));
            offer.others.extend(is_binary.then_some(["CHUNKING", "BINARYMIME"]).into_iter().flatten());
            offer.others.extend(is_special.then_some(FOR_WISHES).into_iter().flatten());
        }
        let (events, wire) = play(&plan, Cut::AndAnswered(lengths));
        let sent = events.iter().filter(|event| matches!(event, Event::Step(Step::Sent { .. }))).count();
        prop_assert_eq!(sent, plan.messages.len(), "{:?}", events);
        // A login may not be offered, or not be allowed in clear.
        let is_failure = |event: &Event| match event {
            Event::Failed { phase, .. } => *phase != Phase::Auth,
            Event::Step(_) => false,
        };
        prop_assert!(!events.iter().any(is_failure), "{:?}", events);
        prop_assert!(wire.ends_with(b"\r\nQUIT\r\n"));
    }
}

/// The go-ahead for TLS came together with the offer, before STARTTLS had gone.
#[test]
fn nothing_said_in_clear_is_left_for_the_inside_of_tls() {
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.starttls = StartTls::Required;
    let mut session = Session::new(settings, Cut::Nowhere);
    session.feed(b"220 mail.example.org\r\n");
    session.take(usize::MAX);
    session.feed(b"250-mail.example.org\r\n250 STARTTLS\r\n220 Go ahead\r\n");
    assert!(matches!(session.want, Step::Wait { .. }), "STARTTLS has not gone");
    session.take(4);
    session.upgraded();
    assert!(matches!(session.want, Step::Wait { .. }), "it has not gone as a whole");
    session.take(usize::MAX);
    assert_eq!(session.want, Step::Upgrade);
    session.upgraded();
    session.take(usize::MAX);
    assert!(session.wire.ends_with(b"\r\nSTARTTLS\r\nEHLO client.example.org\r\n"));
    session.conclude();
}

/// What was announced with BDAT is a message to the server as soon as it is there, whether its end was given or not.
#[test]
fn a_chunk_does_not_go_whole_before_its_end_is_known() {
    let session_in_chunk = || {
        let mut session = Session::new(Settings::new(ClientName::new("client.example.org").unwrap()), Cut::Nowhere);
        session.feed(b"220 mail.example.org\r\n");
        session.take(usize::MAX);
        session.feed(b"250-mail.example.org\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
        let mut transaction = Transaction::new(&Envelope::new(None, [address(0)]).unwrap());
        transaction.size = Some(7);
        session.begin(transaction, &[]);
        session.body(b"hello\r\n");
        session.body(b"");
        session.take(usize::MAX);
        session.feed(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
        assert!(session.wire.ends_with(b"BDAT 7 LAST\r\n"), "nothing is left to be told to the server but the end");
        session
    };
    let mut session = session_in_chunk();
    session.finish();
    session.take(usize::MAX);
    assert!(session.wire.ends_with(b"BDAT 7 LAST\r\nhello\r\n"));
    session.feed(b"250 2.0.0 Ok: queued\r\n");
    assert!(matches!(session.conclude().0.last(), Some(Event::Step(Step::Sent { .. }))));

    // More than was announced: the error says that nothing was sent, and so it is.
    let mut session = session_in_chunk();
    session.body(b"more");
    session.take(usize::MAX);
    assert_eq!(session.want, Step::Closed);
    assert!(session.wire.ends_with(b"BDAT 7 LAST\r\n"));
}
