//! Plays the conversations of `tests/dialogues` against the machine: no socket, no clock, no TLS.

use std::path::Path;
use std::sync::LazyLock;

use envoi::Phase;
use envoi::proto::{
    ChannelBinding, ClientName, Content, Event, Machine, Output, Protocol, Settings, StartTls,
    Step, Stuffer, Transaction,
};
use proptest::prelude::*;
use support::dialogue::{Dialogue, HandOver, Send, Tls, Turn, read_folder};
use support::{address, text};

fn dialogues() -> Vec<(String, Dialogue)> {
    read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues"))
}

/// The size of a message as RFC 1870 counts it.
fn wire_size(send: &Send) -> u64 {
    let mut stuffer = match send.content {
        Content::Binary => Stuffer::verbatim(),
        _ => Stuffer::without_dots(),
    };
    let mut output = Output::default();
    stuffer.push(send.message.clone().into(), &mut output);
    stuffer.finish(&mut output);
    stuffer.bytes()
}

/// How bytes are split: the sizes are used one after another, over and over. Empty: not at all.
#[derive(Clone, Default)]
struct Splits {
    sizes: Vec<usize>,
    used: usize,
}

impl Splits {
    fn next(&mut self, at_most: usize) -> usize {
        if self.sizes.is_empty() {
            return at_most;
        }
        self.used += 1;
        self.sizes[(self.used - 1) % self.sizes.len()].min(at_most)
    }
}

/// What became of the messages, and all events.
type Played = (Vec<String>, Vec<String>);

/// The client's side: the machine, and a caller that does what the dialogue asks for.
struct Player<'a> {
    name: &'a str,
    dialogue: &'a Dialogue,
    machine: Machine,
    /// What was written since the client's last turn.
    said: Vec<u8>,
    events: Vec<String>,
    /// What became of the messages, as `expect:` has it, and of their recipients.
    outcomes: Vec<String>,
    recipients: Vec<Vec<String>>,
    verdicts: Vec<Vec<String>>,
    is_login_due: bool,
    /// Why it failed.
    said_of_login: Option<String>,
    /// With `steps: yes`: how many recipients of the transaction that is open were given.
    open: Option<usize>,
    /// How many bytes of the message were given.
    given: usize,
    /// More of what the server says can be read without waiting.
    unheard: bool,
    splits: Splits,
}

impl<'a> Player<'a> {
    fn new(name: &'a str, dialogue: &'a Dialogue, splits: Splits) -> Self {
        let mut settings = Settings::new(ClientName::new(&*dialogue.helo).unwrap());
        if dialogue.is_lmtp {
            settings.protocol = Protocol::Lmtp;
        }
        settings.auth_in_clear = dialogue.auth_in_clear;
        if let Some(size) = dialogue.chunk_size {
            settings.chunk_size = size;
        }
        settings.nonce = dialogue.nonce.clone();
        settings.server = dialogue.server.clone();
        settings.secure = dialogue.tls == Tls::Implicit;
        settings.starttls = match dialogue.tls {
            Tls::None | Tls::Implicit => StartTls::Never,
            Tls::Opportunistic => StartTls::IfOffered,
            Tls::Required => StartTls::Required,
        };
        let nothing: Vec<_> = dialogue
            .sends
            .iter()
            .map(|send| vec!["-".to_owned(); send.to.len()])
            .collect();
        Player {
            name,
            dialogue,
            machine: Machine::new(settings),
            said: Vec::new(),
            events: Vec::new(),
            outcomes: Vec::new(),
            recipients: nothing.clone(),
            verdicts: nothing,
            is_login_due: dialogue.auth.is_some(),
            said_of_login: None,
            open: None,
            given: 0,
            unheard: false,
            splits,
        }
    }

    fn play(mut self) -> Played {
        let name = self.name;
        for (i, turn) in self.dialogue.script.iter().enumerate() {
            match turn {
                Turn::Server(bytes) => {
                    self.run(false, 0);
                    assert_eq!(
                        text(&self.said),
                        "",
                        "{name}, turn {i}: said before the server's {:?}",
                        text(bytes)
                    );
                    self.receive(bytes);
                }
                Turn::Client(bytes) => {
                    self.run(true, usize::MAX);
                    assert_eq!(text(&self.said), text(bytes), "{name}, turn {i}");
                    self.said.clear();
                }
                Turn::Body(size) => {
                    self.run(true, *size);
                    assert_eq!(
                        self.given, *size,
                        "{name}, turn {i}: the machine took no more of the message"
                    );
                    assert!(
                        self.said.len() + 2 >= *size,
                        "{name}, turn {i}: more is held back than the end of a line"
                    );
                    self.said.clear();
                    let pending = |send: &Send| {
                        send.hand_over == Some(HandOver::Pending) && send.message.len() == *size
                    };
                    if self.current().is_some_and(pending) {
                        self.run(true, usize::MAX);
                        assert_eq!(text(&self.said), "", "{name}, turn {i}: an end");
                    }
                }
                Turn::Tls if i == 0 => {
                    assert_eq!(self.dialogue.tls, Tls::Implicit);
                    self.bind();
                }
                Turn::Tls => {
                    self.run(false, 0);
                    assert_eq!(
                        self.machine.step().unwrap(),
                        Step::Upgrade,
                        "{name}, turn {i}"
                    );
                    self.machine.upgraded().unwrap();
                    self.bind();
                }
                Turn::Close => {
                    self.machine.input_ended();
                    self.run(false, 0);
                }
                Turn::WaitClose => {
                    self.run(true, usize::MAX);
                    assert_eq!(
                        self.machine.step().unwrap(),
                        Step::Closed,
                        "{name}, turn {i}"
                    );
                }
                Turn::Message | Turn::Reset | Turn::QuitOrClose | Turn::Connect => {
                    panic!("{name}, turn {i}: {turn:?} says too little for this test")
                }
            }
        }
        self.run(false, 0);
        assert_eq!(text(&self.said), "", "{name}: said after the end");
        assert_eq!(self.machine.step().unwrap(), Step::Closed);
        if let Some(round_trips) = self.dialogue.round_trips {
            assert_eq!(
                self.machine.round_trips(),
                round_trips,
                "{name}: round trips"
            );
        }
        if let Some(reason) = &self.dialogue.reason {
            let said = self.said_of_login.unwrap_or_default();
            assert!(
                said.contains(reason),
                "{name}: of the login is said {said:?}"
            );
        }
        if let Some(auth) = &self.dialogue.auth
            && auth.password.len() > 3
        {
            let shown = format!("{}{:?}", self.machine.transcript(), self.events);
            assert!(
                !shown.contains(&auth.password),
                "{name}: the secret is shown in {shown}"
            );
        }
        self.outcomes
            .resize(self.dialogue.sends.len(), "nothing".into());
        for (i, send) in self.dialogue.sends.iter().enumerate() {
            assert_eq!(
                self.outcomes[i], send.expect,
                "{name}: the outcome of message {i}"
            );
            assert_eq!(
                self.recipients[i].join(" "),
                send.recipients,
                "{name}: the recipients of message {i}"
            );
            assert_eq!(
                self.verdicts[i].join(" "),
                send.verdicts,
                "{name}: the verdicts on message {i}"
            );
        }
        (self.outcomes, self.events)
    }

    /// What the handshake told.
    fn bind(&mut self) {
        if let Some((name, bytes)) = &self.dialogue.channel_binding {
            self.machine.set_channel_binding(match name.as_str() {
                "tls-exporter" => ChannelBinding::tls_exporter(bytes.as_bytes()),
                "tls-server-end-point" => ChannelBinding::tls_server_end_point(bytes.as_bytes()),
                name => panic!("{}: no such binding: {name}", self.name),
            });
        }
    }

    /// The server's bytes, in pieces; the machine does by itself what follows from each.
    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let size = self.splits.next(bytes.len());
            let taken = self.machine.input(&bytes[..size]);
            bytes = &bytes[taken..];
            self.unheard = !bytes.is_empty();
            self.run(false, 0);
        }
    }

    /// Goes on until the machine waits for the server, or for the caller if that shall not `act`;
    /// no more than so many bytes of the message are given.
    fn run(&mut self, act: bool, message_bytes: usize) {
        loop {
            match self.machine.step() {
                Ok(
                    Step::Wait { .. }
                    | Step::Closed
                    | Step::Upgrade
                    | Step::Body { .. }
                    | Step::Handover,
                ) if self.write() => {}
                Ok(Step::Wait { .. } | Step::Closed | Step::Upgrade | Step::Handover) => return,
                Ok(Step::Ready) if act => self.act(),
                Ok(Step::Body { .. }) if act && self.given < message_bytes => {
                    self.give(message_bytes)
                }
                Ok(Step::Ready | Step::Body { .. }) => return,
                Ok(event) => {
                    self.events.push(format!("{event:?}"));
                    self.on_event(event);
                }
                Err(error) => self.on_error(error),
            }
        }
    }

    fn write(&mut self) -> bool {
        if self.unheard && self.machine.should_read_first() {
            return false;
        }
        let wrote = !self.machine.output().is_empty();
        while !self.machine.output().is_empty() {
            let front = self.machine.output().front();
            let size = self.splits.next(front.len());
            self.said.extend_from_slice(&front[..size]);
            self.machine.wrote(size);
        }
        wrote
    }

    /// The message that has no outcome yet.
    fn current(&self) -> Option<&'a Send> {
        self.dialogue.sends.get(self.outcomes.len())
    }

    fn act(&mut self) {
        if let Some(auth) = &self.dialogue.auth
            && std::mem::take(&mut self.is_login_due)
        {
            if let Err(error) = self
                .machine
                .login(auth.mechanism.parse().unwrap(), &auth.credentials())
            {
                self.on_error(error);
                self.give_up();
            }
            return;
        }
        let Some(send) = self.current() else {
            return self.machine.quit().unwrap();
        };
        let result = match self.open {
            Some(next) if next < send.to.len() => {
                self.open = Some(next + 1);
                self.machine.rcpt(address(&send.to[next]))
            }
            Some(_) => {
                self.open = None;
                let replies = &self.recipients[self.outcomes.len()];
                if replies.iter().any(|code| code.starts_with('2')) {
                    self.machine.data()
                } else {
                    self.outcomes
                        .push(format!("refused rcpt {}", replies.last().unwrap()));
                    self.machine.reset()
                }
            }
            None => {
                let mut transaction = Transaction::open(send.from.as_deref().map(address));
                transaction.size = send.size_known.then(|| wire_size(send));
                transaction.content = send.content;
                transaction.all_or_nothing = send.all_or_nothing;
                transaction.await_sender = send.await_sender;
                transaction.hand_over = send.hand_over.is_some();
                transaction.delivery = send.delivery.clone();
                self.given = 0;
                if self.dialogue.steps {
                    self.open = Some(0);
                    self.machine.mail(transaction)
                } else {
                    transaction.recipients = send.to.iter().map(|to| address(to)).collect();
                    self.machine.begin(transaction)
                }
            }
        };
        if let Err(error) = result {
            self.on_error(error);
        }
    }

    fn give(&mut self, message_bytes: usize) {
        let send = self.current().expect("a message is under way");
        let message = &send.message;
        let end = message.len().min(message_bytes);
        let result = if self.given == message.len() {
            self.given = usize::MAX;
            self.machine.finish().and_then(|()| match send.hand_over {
                Some(HandOver::Permitted) => self.machine.hand_over(),
                Some(HandOver::Refused) => self.machine.withdraw(),
                Some(HandOver::Pending) | None => Ok(()),
            })
        } else {
            let size = self.splits.next(end - self.given);
            self.given += size;
            self.machine
                .body(message[self.given - size..self.given].to_vec())
        };
        if let Err(error) = result {
            self.on_error(error);
        }
    }

    fn on_event(&mut self, event: Step) {
        match event {
            Step::Event(Event::Login { reply, reason, .. }) if !reply.is_positive() => {
                self.said_of_login = reason;
                self.outcomes.push(format!("refused auth {}", reply.code()));
                self.give_up();
            }
            Step::Event(Event::Sender { reply }) if self.dialogue.steps && !reply.is_positive() => {
                self.open = None;
                self.outcomes.push(format!("refused mail {}", reply.code()));
            }
            Step::Event(Event::Recipient { index, reply }) => {
                self.recipients[self.outcomes.len()][index] = reply.code().to_string();
            }
            Step::Event(Event::RecipientResult { index, reply }) => {
                self.verdicts[self.outcomes.len()][index] = reply.code().to_string();
            }
            Step::Event(Event::Accepted { reply }) => {
                self.outcomes.push(format!("sent {}", reply.code()))
            }
            Step::Event(Event::Rejected { phase, reply }) => {
                self.outcomes
                    .push(format!("refused {phase} {}", reply.code()));
                self.quit();
            }
            Step::Event(Event::Withdrawn) => {
                self.outcomes.push("failed hand-over hand-over".into());
                self.quit();
            }
            _ => {}
        }
    }

    /// After a refusal, where no other message follows: at once, if it may be said.
    fn quit(&mut self) {
        if self.current().is_none() {
            let _ = self.machine.quit();
        }
    }

    fn on_error(&mut self, error: impl Into<envoi::Error>) {
        let error = error.into();
        if error.phase() == Phase::Auth {
            self.said_of_login = Some(error.message().to_owned());
        }
        let word = if error.outcome_unknown() {
            "unknown"
        } else {
            "failed"
        };
        let outcome = format!("{word} {} {}", error.kind(), error.phase());
        self.events.push(outcome.clone());
        if self.current().is_some() {
            self.outcomes.push(outcome);
        }
        self.quit();
        if matches!(self.machine.step(), Ok(Step::Closed)) {
            let _ = self.machine.quit();
        }
    }

    /// Without a login, no message is tried.
    fn give_up(&mut self) {
        self.outcomes
            .resize(self.dialogue.sends.len(), "nothing".into());
    }
}

#[test]
fn every_dialogue_gives_its_outcomes() {
    for (name, dialogue) in dialogues() {
        Player::new(&name, &dialogue, Splits::default()).play();
    }
}

#[test]
fn every_dialogue_gives_the_same_events_byte_by_byte() {
    for (name, dialogue) in dialogues() {
        let whole = Player::new(&name, &dialogue, Splits::default()).play();
        let split = Player::new(
            &name,
            &dialogue,
            Splits {
                sizes: vec![1],
                used: 0,
            },
        )
        .play();
        assert_eq!(whole, split, "{name}");
    }
}

/// The dialogues, and what comes of each where nothing is split.
static WHOLE: LazyLock<Vec<(String, Dialogue, Played)>> = LazyLock::new(|| {
    let played = |(name, dialogue): (String, Dialogue)| {
        let whole = Player::new(&name, &dialogue, Splits::default()).play();
        (name, dialogue, whole)
    };
    dialogues().into_iter().map(played).collect()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The same bytes give the same events, whole sessions long, however both sides' bytes are
    /// split.
    #[test]
    fn every_dialogue_gives_the_same_events_in_any_cut(sizes in prop::collection::vec(1..40usize, 1..12)) {
        for (name, dialogue, whole) in WHOLE.iter() {
            let split = Player::new(name, dialogue, Splits { sizes: sizes.clone(), used: 0 })
                .play();
            prop_assert_eq!(whole, &split, "{}", name);
        }
    }
}
