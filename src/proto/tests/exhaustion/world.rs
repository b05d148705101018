//! The machine, its caller and the server: what each of them can do next, and what must hold after
//! it.

use std::hash::Hasher;

use super::fingerprint;
use super::server::{Class, News, Received, Server, Truth};
use super::{Configuration, Framing, Kind};
use crate::address::Address;
use crate::proto::{
    AbortReason, ClientName, Content, Event, Machine, Mechanism, Phase, Protocol, ProtocolError,
    Reason, Reply, Settings, StartTls, State, Step, Transaction,
};
use crate::{Credentials, Envelope};

/// The number of characters in the first half of a reply.
const HALF: usize = 5;

/// What the caller of the machine can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Upgraded,
    Login,
    Begin,
    Mail,
    Rcpt,
    Data,
    Body,
    Finish,
    HandOver,
    Withdraw,
    Reset,
    Noop,
    Quit,
}

impl Call {
    const ALL: [Call; 13] = [
        Call::Upgraded,
        Call::Login,
        Call::Begin,
        Call::Mail,
        Call::Rcpt,
        Call::Data,
        Call::Body,
        Call::Finish,
        Call::HandOver,
        Call::Withdraw,
        Call::Reset,
        Call::Noop,
        Call::Quit,
    ];
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    Call(Call),
    /// The transport takes the next command, message or chunk, or what is left of it.
    Write,
    /// The transport takes that without its last byte.
    WriteMost,
    /// The server answers what it received.
    Reply(Class),
    /// The server answers, and the caller quits as soon as a message is rejected.
    ReplyAndQuit(Class),
    /// The first half of the answer comes.
    Half(Class),
    /// The rest of it.
    Rest,
    /// The server closes the connection.
    Eof,
    /// The driver gives up.
    Abort,
}

/// What the machine waits for, by its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wants {
    Wait,
    Upgrade,
    Ready,
    Body,
    Handover,
    Closed,
}

pub struct World {
    configuration: Configuration,
    machine: Machine,
    server: Server,
    wants: Wants,
    /// How many messages were begun, and how many of them have an outcome or were given up.
    begun: usize,
    settled: usize,
    /// Of a transaction step by step: it is open, and how many recipients it was given.
    is_open: bool,
    recipients: usize,
    /// Pieces of the newest message that were given.
    given: usize,
    finished: bool,
    /// The messages that may be delivered, and those that were withdrawn, by their numbers.
    handed_over: Vec<bool>,
    noops: usize,
    logins: usize,
    quit: bool,
    aborted: bool,
    /// The session is over.
    pub over: bool,
    /// QUIT is to be given where a message is rejected.
    quits_on_rejection: bool,
}

impl World {
    pub fn new(configuration: Configuration) -> Self {
        let mut settings = Settings::new(ClientName::new("me").unwrap());
        settings.chunk_size = 3;
        if configuration.kind == Kind::Lmtp {
            settings.protocol = Protocol::Lmtp;
        }
        if configuration.session {
            settings.starttls = StartTls::IfOffered;
        }
        let mut world = World {
            configuration,
            machine: Machine::new(settings),
            server: Server::new(configuration),
            wants: Wants::Wait,
            begun: 0,
            settled: 0,
            is_open: false,
            recipients: 0,
            given: 0,
            finished: false,
            handed_over: Vec::new(),
            noops: 0,
            logins: 0,
            quit: false,
            aborted: false,
            over: false,
            quits_on_rejection: false,
        };
        world.settle();
        if !configuration.session {
            let setup = [
                Move::Reply(Class::Yes),
                Move::Write,
                Move::Reply(Class::Yes),
            ];
            setup.into_iter().for_each(|step| world.apply(step));
        }
        world
    }

    pub fn hash(&self, hasher: &mut impl Hasher) {
        use std::hash::Hash;
        if self.over {
            return;
        }
        fingerprint::hash(&self.machine, hasher);
        self.server.hash(self.settled, hasher);
        (self.wants, self.begun, self.settled, self.is_open).hash(hasher);
        (self.recipients, self.given, self.finished).hash(hasher);
        self.handed_over.get(self.settled..).hash(hasher);
        (self.noops, self.logins, self.quit).hash(hasher);
    }

    pub fn dialogue(&self) -> String {
        self.machine.transcript().to_string()
    }

    // ---- What can happen ----

    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.over {
            return moves;
        }
        moves.extend(
            Call::ALL
                .into_iter()
                .filter(|call| self.wishes(*call) && self.may(*call))
                .map(Move::Call),
        );
        if !self.server.closed {
            let output = fingerprint::output(self.machine.output());
            let unit = self.server.unit(&output);
            if unit > 0 {
                moves.push(Move::Write);
            }
            if unit > 1 && (self.configuration.splits || self.server.is_in_message()) {
                moves.push(Move::WriteMost);
            }
            for class in self.server.choices() {
                moves.push(Move::Reply(class));
                let is_final = matches!(self.server.todo.front(), Some(Received::End(_)));
                if self.configuration.splits || is_final || class == Class::Shutdown {
                    moves.push(Move::Half(class));
                }
                if class == Class::No {
                    moves.push(Move::ReplyAndQuit(class));
                }
            }
            if self.server.half.is_some() {
                moves.push(Move::Rest);
            }
        }
        assert!(
            !moves.is_empty() || self.server.closed,
            "the machine and the server wait for each other"
        );
        if !self.server.closed {
            moves.push(Move::Eof);
        }
        moves.push(Move::Abort);
        moves
    }

    /// The caller has a use for it.
    fn wishes(&self, call: Call) -> bool {
        let left = self.begun < self.configuration.messages;
        match call {
            Call::Upgraded => true,
            Call::Login => self.logins < 2,
            Call::Begin => left && !self.configuration.by_steps && !self.configuration.session,
            Call::Mail => left && self.configuration.by_steps,
            Call::Rcpt => self.recipients < self.configuration.recipients,
            Call::Data => true,
            Call::Body => self.given < 2,
            Call::Finish => self.given == 2,
            Call::HandOver | Call::Withdraw => self.configuration.hand_over,
            Call::Reset | Call::Noop => {
                self.noops == 0 && (self.configuration.by_steps || self.configuration.session)
            }
            Call::Quit => true,
        }
    }

    /// The documentation allows it now.
    fn may(&self, call: Call) -> bool {
        let ready = self.wants == Wants::Ready;
        match call {
            Call::Upgraded => self.wants == Wants::Upgrade,
            Call::Login => ready && !self.is_open && !self.machine.capabilities().auth().is_empty(),
            Call::Begin => !self.is_open && self.machine.may_begin(),
            Call::Mail => ready && !self.is_open,
            Call::Rcpt => ready && self.is_open,
            Call::Data => ready && self.is_open && !self.accepted().is_empty(),
            Call::Body | Call::Finish => self.wants == Wants::Body,
            Call::HandOver | Call::Withdraw => self.held_message().is_some(),
            Call::Reset | Call::Noop => ready,
            Call::Quit => ready || self.wants == Wants::Closed && !self.over,
        }
    }

    /// The first message that waits for its hand-over: given whole, not refused, and not decided.
    fn held_message(&self) -> Option<usize> {
        (self.machine.held_messages() > 0).then(|| self.handed_over.len().max(self.settled))
    }

    fn accepted(&self) -> Vec<usize> {
        match self.server.records.len() {
            0 => Vec::new(),
            begun => self.server.accepted(begun - 1),
        }
    }

    // ---- What happens ----

    pub fn apply(&mut self, step: Move) {
        match step {
            Move::Call(call) => {
                let held = self.held_message();
                let result = self.call(call);
                self.called(call, held, result);
            }
            Move::Write => self.write(0),
            Move::WriteMost => self.write(1),
            Move::Reply(class) => self.reply(class),
            Move::ReplyAndQuit(class) => {
                self.quits_on_rejection = true;
                self.reply(class);
                self.quits_on_rejection = false;
            }
            Move::Half(class) => {
                let line = self.server.reply(class);
                // A 421 is known by its code.
                self.input(&line[..HALF]);
                self.server.half = Some((class, line));
            }
            Move::Rest => {
                let (class, line) = self.server.half.take().unwrap();
                self.input(&format!("{}\r\n", &line[HALF..]));
                self.server.answered(class, line);
            }
            Move::Eof => {
                // A 421 that was cut off is one, but as the answer to a message.
                let is_message = matches!(self.server.todo.front(), Some(Received::End(_)));
                if let Some((Class::Shutdown, line)) = self.server.half.take()
                    && !is_message
                {
                    self.server
                        .answered(Class::Shutdown, line[..HALF].to_owned());
                }
                self.server.closed = true;
                self.machine.input_ended();
            }
            Move::Abort => {
                self.aborted = true;
                let error = self
                    .machine
                    .abort(AbortReason::TimedOut("too slow".to_owned()));
                self.failed(&error);
            }
        }
        self.settle();
        self.check(step);
    }

    fn reply(&mut self, class: Class) {
        let line = self.server.reply(class);
        self.input(&format!("{line}\r\n"));
        self.server.answered(class, line);
    }

    fn input(&mut self, text: &str) {
        assert_eq!(self.machine.input(text.as_bytes()), text.len());
    }

    fn write(&mut self, without: usize) {
        let output = fingerprint::output(self.machine.output());
        let n = self.server.unit(&output) - without;
        self.server.receive(&output[..n]);
        self.machine.wrote(n);
    }

    fn transaction(&self, message: usize) -> Transaction {
        let configuration = &self.configuration;
        let address = |text: String| Address::new(text).unwrap();
        let sender = address(format!("m{message}@example.org"));
        let recipients = (0..configuration.recipients).map(|index| recipient(message, index));
        let mut transaction = match configuration.by_steps {
            true => Transaction::open(Some(sender)),
            false => Transaction::new(&Envelope::new(sender, recipients).unwrap()),
        };
        transaction.all_or_nothing = configuration.all_or_nothing;
        transaction.hand_over = configuration.hand_over;
        match configuration.framing {
            Framing::Data => {}
            Framing::Chunk => transaction.size = Some(7),
            Framing::Chunks => transaction.content = Content::Binary,
        }
        transaction
    }

    fn call(&mut self, call: Call) -> Result<(), ProtocolError> {
        let message = self.begun.saturating_sub(1);
        match call {
            Call::Upgraded => self.machine.upgraded(),
            Call::Login => self
                .machine
                .login(Mechanism::Login, &Credentials::new("user", "password")),
            Call::Begin => {
                let mut transaction = self.transaction(self.begun);
                if self.configuration.by_steps {
                    transaction.recipients = vec![recipient(self.begun, 0)];
                }
                self.machine.begin(transaction)
            }
            Call::Mail => {
                let mut transaction = self.transaction(self.begun);
                transaction.recipients.clear();
                self.machine.mail(transaction)
            }
            Call::Rcpt => self.machine.rcpt(recipient(message, self.recipients)),
            Call::Data => self.machine.data(),
            Call::Body => {
                let piece = self.configuration.pieces(message)[self.given.min(1)].clone();
                self.machine.body(piece)
            }
            Call::Finish => self.machine.finish(),
            Call::HandOver => self.machine.hand_over(),
            Call::Withdraw => self.machine.withdraw(),
            Call::Reset => self.machine.reset(),
            Call::Noop => self.machine.noop(),
            Call::Quit => self.machine.quit(),
        }
    }

    fn called(&mut self, call: Call, held: Option<usize>, result: Result<(), ProtocolError>) {
        if let Err(error) = result {
            assert!(!is_misuse(error.reason()), "{call:?}: {error}");
            // What came unasked is looked at before a command.
            assert!(self.server.half.is_some(), "{call:?}: {error}");
            return self.failed(&error);
        }
        match call {
            Call::Upgraded => self.server.upgraded(),
            Call::Login => self.logins += 1,
            Call::Begin | Call::Mail => {
                self.begun += 1;
                (self.given, self.finished) = (0, false);
                self.is_open = call == Call::Mail;
                self.recipients = match call {
                    Call::Mail => 0,
                    _ => self.configuration.recipients,
                };
            }
            Call::Rcpt => self.recipients += 1,
            Call::Data => self.is_open = false,
            Call::Body => self.given += 1,
            Call::Finish => self.finished = true,
            Call::HandOver | Call::Withdraw => {
                // Those before it that are not among them were refused before their turn.
                let held = held.expect("a message is held back");
                self.handed_over.resize(held, false);
                self.handed_over.push(call == Call::HandOver);
            }
            Call::Reset => {
                self.noops += 1;
                self.server.reset_asked = true;
                (self.is_open, self.settled) = (false, self.begun);
            }
            Call::Noop => self.noops += 1,
            Call::Quit => {
                self.quit = true;
                self.give_up();
            }
        }
    }

    /// Takes all events.
    fn settle(&mut self) {
        while !self.over {
            match self.machine.step() {
                Ok(Step::Wait { .. }) => return self.wants = Wants::Wait,
                Ok(Step::Upgrade) => return self.wants = Wants::Upgrade,
                Ok(Step::Ready) => return self.wants = Wants::Ready,
                Ok(Step::Body { .. }) => return self.wants = Wants::Body,
                Ok(Step::Handover) => return self.wants = Wants::Handover,
                Ok(Step::Closed) => self.over = true,
                Ok(event) => self.on_event(event),
                Err(error) => {
                    self.failed(&error);
                    let can_quit = !self.server.closed && !self.server.said_421 && !self.aborted;
                    if can_quit && self.configuration.session && error.reply().is_some() {
                        // The server refused the session, and QUIT may follow.
                        assert_eq!(self.machine.step().unwrap(), Step::Closed);
                        return self.wants = Wants::Closed;
                    }
                }
            }
        }
        self.wants = Wants::Closed;
    }

    // ---- What must hold ----

    fn on_event(&mut self, event: Step) {
        let line = |reply: &Reply| format!("{} {}", reply.code(), reply.lines().join("\n"));
        let news = match &event {
            Step::Event(Event::Login { reply, .. }) => News::Login(line(reply)),
            Step::Event(Event::Sender { reply }) => News::Sender(line(reply)),
            Step::Event(Event::Recipient { index, reply }) => News::Recipient(*index, line(reply)),
            Step::Event(Event::RecipientResult { index, reply }) => {
                News::Result(*index, line(reply))
            }
            Step::Event(Event::Reply { reply }) => News::Reply(line(reply)),
            Step::Event(Event::Accepted { reply }) => {
                let truth = self.truth();
                assert_eq!(truth, Truth::Accepted(line(reply)));
                self.settled += 1;
                return;
            }
            Step::Event(Event::Withdrawn) => {
                let message = self.settled;
                assert_eq!(self.handed_over.get(message), Some(&false), "{message}");
                assert!(
                    !self.is_whole(message),
                    "a message that was withdrawn was sent"
                );
                self.settled += 1;
                return;
            }
            Step::Event(Event::Rejected { phase, reply }) => {
                self.on_rejected(*phase, line(reply));
                return;
            }
            event => panic!("{event:?} is not an event"),
        };
        if self.configuration.by_steps {
            match &event {
                Step::Event(Event::Sender { reply }) if !reply.is_positive() => self.give_up(),
                Step::Event(Event::Recipient { reply, .. })
                    if !reply.is_positive() && self.configuration.all_or_nothing =>
                {
                    self.give_up();
                }
                _ => {}
            }
        }
        if let News::Login(line) | News::Reply(line) = &news
            && line.starts_with("421 ")
            && std::mem::take(&mut self.server.unasked_421)
        {
            return;
        }
        while let Some((expected, excused)) = self.server.news.pop_front() {
            if expected == news {
                return;
            }
            assert!(excused, "{expected:?} was not reported, but {news:?}");
        }
        panic!("{news:?} was not said by the server, or was reported before");
    }

    /// A transaction step by step is over without a message.
    fn give_up(&mut self) {
        if self.is_open {
            self.is_open = false;
            self.settled = self.begun;
        }
    }

    fn on_rejected(&mut self, phase: Phase, line: String) {
        assert!(self.settled < self.begun, "an outcome of no message");
        let truth = self.truth();
        let message = self.settled;
        let record = self.server.records.get(message);
        let is_whole = record.is_some_and(|record| record.whole);
        // Nothing follows 421: what was not handed over by then was not sent, nor what had no
        // accepted recipient when the server closed.
        let after_421 = self.server.said_421
            && !matches!(truth, Truth::Accepted(_))
            && (!is_whole || self.server.closed && self.server.accepted(message).is_empty());
        if !after_421 {
            assert_eq!(truth, Truth::Rejected(phase, line));
        }
        self.settled += 1;
        self.is_open = false;
        if self.quits_on_rejection && self.machine.quit().is_ok() {
            self.quit = true;
        }
    }

    fn truth(&self) -> Truth {
        assert!(self.settled < self.begun, "an outcome of no message");
        self.server
            .truth(self.settled, self.recipients_of(self.settled))
    }

    fn recipients_of(&self, message: usize) -> usize {
        match self.is_open && message + 1 == self.begun {
            // More may follow.
            true => usize::MAX,
            false if self.configuration.by_steps => self.recipients,
            false => self.configuration.recipients,
        }
    }

    fn failed(&mut self, error: &ProtocolError) {
        let unknown = self.machine.unconfirmed_messages() > 0;
        assert_eq!(error.outcome_unknown(), unknown, "{error:?}");
    }

    fn is_whole(&self, message: usize) -> bool {
        let record = self.server.records.get(message);
        record.is_some_and(|record| record.whole)
    }

    fn check(&self, step: Move) {
        if self.configuration.hand_over
            && let Some(message) = self.server.last_end()
        {
            let permission = self.handed_over.get(message);
            assert_eq!(
                permission,
                Some(&true),
                "the end of message {message} was written"
            );
        }
        if self.over {
            return self.check_end();
        }
        assert!(
            !matches!(step, Move::Eof | Move::Abort) || self.wants == Wants::Upgrade,
            "{step:?} does not end the session"
        );
        if self.server.said_421 {
            assert!(self.machine.output().is_empty(), "nothing follows 421");
        }
        if self.server.half.is_none() {
            let news = self.server.news.iter().find(|(_, excused)| !excused);
            assert_eq!(news, None, "it is not reported");
        }
        let is_front_whole = self.settled < self.begun && self.is_whole(self.settled);
        if self.server.half.is_none() {
            assert_eq!(self.machine.outcome_unknown(), is_front_whole);
        }
        for message in self.settled..self.begun {
            let truth = self.server.truth(message, self.recipients_of(message));
            let is_settled = truth != Truth::Open
                && message < self.server.records.len()
                && self.server.is_answered(message)
                && self.wants == Wants::Ready;
            assert!(!is_settled, "no outcome of message {message}: {truth:?}");
        }
    }

    /// The session is over: each message has its outcome, was not handed over, or is unknown.
    fn check_end(&self) {
        assert!(self.machine.output().is_empty());
        let mut unknown = 0;
        for message in self.settled..self.begun {
            let truth = self.server.truth(message, self.recipients_of(message));
            if message == self.settled && !self.is_open {
                assert_eq!(truth, Truth::Open, "no outcome of message {message}");
            }
            let excused = self.server.said_421
                && self.server.closed
                && !self.aborted
                && self.server.accepted(message).is_empty();
            unknown += usize::from(self.is_whole(message) && truth == Truth::Open && !excused);
        }
        assert_eq!(self.machine.unconfirmed_messages(), unknown);
    }

    /// What is out of turn is refused and changes nothing.
    pub fn check_calls(&mut self) {
        if self.over || self.server.half.is_some() || self.wants == Wants::Closed {
            return;
        }
        let hash = |world: &World| {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            fingerprint::hash(&world.machine, &mut hasher);
            hasher.finish()
        };
        let before = hash(self);
        for call in Call::ALL {
            // More of a message is taken than was asked for.
            let is_taken = call == Call::Body && self.machine.state == State::Body;
            // QUIT may go with what is unanswered of a message that was not sent.
            let is_grouped = call == Call::Quit && self.configuration.pipelining;
            if self.may(call) || is_taken || is_grouped {
                continue;
            }
            let error = self.call(call).expect_err("a call out of turn");
            let reason = error.reason();
            // With `SessionOver`, the server refused the session, and QUIT was given.
            let is_refused = is_misuse(reason)
                || matches!(
                    reason,
                    Reason::SessionOver
                        | Reason::LoginInClear(_)
                        | Reason::MechanismNotOffered { .. }
                );
            assert!(is_refused, "{call:?}: {error}");
            assert_eq!(hash(self), before, "{call:?} changes the machine: {error}");
        }
    }
}

fn recipient(message: usize, index: usize) -> Address {
    Address::new(format!("m{message}r{index}@example.com")).unwrap()
}

/// The call does not fit the state.
fn is_misuse(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::OutOfTurn { .. } | Reason::NoTransaction | Reason::NoRecipientAccepted
    )
}
