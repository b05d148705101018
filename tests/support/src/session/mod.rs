//! A machine under a caller that notes what it says and checks, at every turn, what must hold for
//! any server and any caller. The properties here and the fuzz target `machine` share it.

mod delivery_options;
mod transfer;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use envoi::proto::{
    AbortReason, Event, Machine, Mechanism, Protocol, ProtocolError, RawCommand, Reply, Settings,
    Step, Transaction,
};
use envoi::{Address, Credentials, Error, ErrorKind, Phase};

pub use crate::decoder::{normalised, unstuffed};
pub use delivery_options::Wish;
use transfer::{Transfer, end_of_data};
use wire::{Said, Went};

/// No address and no command holds these.
const USER: &str = "submitter#7";
const PASSWORD: &str = "correct-horse#7";

/// How the server's bytes reach the machine.
#[derive(Clone, Debug)]
pub enum Split {
    /// All that is there at once.
    Nowhere,
    Everywhere,
    /// In pieces of these lengths, over and over.
    Into(Vec<usize>),
    /// In such pieces too, and what the machine says to one goes out before the next comes.
    AndAnswered(Vec<usize>),
}

/// What the caller of a machine gets to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    Step(Step),
    Failed {
        kind: ErrorKind,
        phase: Phase,
        message: String,
        reply: Option<Reply>,
        outcome_unknown: bool,
    },
}

pub struct Session {
    machine: Machine,
    protocol: Protocol,
    split: Split,
    /// What the machine wants by its last step.
    pub want: Step,
    events: Vec<Observed>,
    /// What the transport took.
    pub wire: Vec<u8>,
    protected: bool,
    auth_in_clear: bool,
    chunk_size: usize,
    upgraded_at: Option<usize>,
    /// What the server said since the upgrade, or since the beginning.
    heard: Vec<u8>,
    fed: usize,
    told: usize,
    logins: usize,
    replies: usize,
    /// How far the words had come with so many replies.
    pace: Vec<(usize, u64)>,
    raw: Vec<String>,
    transfers: Vec<Transfer>,
}

impl Session {
    pub fn new(settings: Settings, split: Split) -> Self {
        let (protected, auth_in_clear, chunk_size) =
            (settings.secure, settings.auth_in_clear, settings.chunk_size);
        let mut session = Session {
            protocol: settings.protocol,
            machine: Machine::new(settings),
            split,
            want: Step::Ready,
            events: Vec::new(),
            wire: Vec::new(),
            protected,
            auth_in_clear,
            chunk_size,
            upgraded_at: None,
            heard: Vec::new(),
            fed: 0,
            told: 0,
            logins: 0,
            replies: 0,
            pace: Vec::new(),
            raw: Vec::new(),
            transfers: Vec::new(),
        };
        session.settle();
        session
    }

    // ---- The server's side ----

    /// The server says this.
    pub fn feed(&mut self, bytes: &[u8]) {
        let (lengths, answered) = match self.split.clone() {
            Split::Nowhere => (vec![bytes.len().max(1)], false),
            Split::Everywhere => (vec![1], false),
            Split::Into(lengths) => (lengths, false),
            Split::AndAnswered(lengths) => (lengths, true),
        };
        let mut rest = bytes;
        for length in lengths.into_iter().cycle() {
            if rest.is_empty() {
                return;
            }
            let (mut piece, behind) = rest.split_at(length.min(rest.len()));
            rest = behind;
            while !piece.is_empty() {
                let taken = self.machine.input(piece);
                self.heard.extend_from_slice(&piece[..taken]);
                self.fed += taken;
                self.settle();
                if self.want == Step::Closed {
                    // What came with it is there however it was split, and a QUIT after a refusal
                    // looks at it.
                    for rest in [&piece[taken..], rest] {
                        let taken = self.machine.input(rest);
                        self.heard.extend_from_slice(&rest[..taken]);
                        self.fed += taken;
                    }
                    return;
                }
                assert!(
                    taken > 0,
                    "a machine that wants {:?} takes no input",
                    self.want
                );
                piece = &piece[taken..];
                // A caller that looks before it writes has heard all of this by then. What is under
                // way of a message is the caller's to give out.
                let may_write = !self.machine.should_read_first();
                if answered
                    && may_write
                    && self
                        .transfer()
                        .is_none_or(|transfer| transfer.starts_at.is_none())
                {
                    self.take(usize::MAX);
                }
            }
        }
    }

    /// The server says no more.
    pub fn end(&mut self) {
        self.machine.input_ended();
        self.settle();
    }

    /// The transport takes up to so many bytes.
    pub fn take(&mut self, most: usize) {
        let mut left = most.min(self.machine.output().len());
        while left > 0 {
            let front = self.machine.output().front();
            let n = left.min(front.len());
            assert!(n > 0, "bytes wait, and the first ones are none");
            self.wire.extend_from_slice(&front[..n]);
            self.machine.wrote(n);
            left -= n;
        }
        self.settle();
    }

    /// How many bytes wait to be taken.
    pub fn waiting(&self) -> usize {
        self.machine.output().len()
    }

    // ---- The caller's side ----

    pub fn upgraded(&mut self) {
        if self.call(Machine::upgraded) {
            assert!(self.machine.is_secure());
            assert!(
                self.machine.capabilities().keywords().is_empty(),
                "what was learnt in clear is forgotten"
            );
            self.upgraded_at = Some(self.wire.len());
            self.protected = true;
            self.heard.clear();
        }
        self.settle();
    }

    pub fn login(&mut self, mechanism: Mechanism) {
        if self.call(|machine| machine.login(mechanism, &Credentials::new(USER, PASSWORD))) {
            assert!(
                self.protected || self.auth_in_clear,
                "a login in clear that was not allowed"
            );
            let heard = self.heard.to_ascii_uppercase();
            assert!(
                contains(&heard, b"AUTH") || contains(&heard, b"X-EXPS"),
                "a login that the newest EHLO did not offer"
            );
            self.logins += 1;
        }
        self.settle();
    }

    /// Those things are asked for with it. Returns whether it has begun.
    pub fn begin(&mut self, transaction: Transaction, wishes: &[Wish]) -> bool {
        let transfer = self.transfer_of(transaction, wishes);
        let has_begun = self.call(|machine| machine.begin(transfer.transaction.clone()));
        if has_begun {
            self.open(transfer);
        }
        self.settle();
        has_begun
    }

    pub fn mail(&mut self, transaction: Transaction, wishes: &[Wish]) {
        let transfer = self.transfer_of(transaction, wishes);
        if self.call(|machine| machine.mail(transfer.transaction.clone())) {
            self.open(Transfer {
                by_steps: true,
                ..transfer
            });
        }
        self.settle();
    }

    pub fn rcpt(&mut self, address: Address) {
        if self.call(|machine| machine.rcpt(address.clone()))
            && let Some(transfer) = self.transfers.last_mut()
        {
            transfer.transaction.recipients.push(address);
        }
        self.settle();
    }

    pub fn data(&mut self) {
        self.call(Machine::data);
        self.settle();
    }

    pub fn body(&mut self, piece: &[u8]) {
        if self.call(|machine| machine.body(Bytes::copy_from_slice(piece)))
            && let Some(transfer) = self.transfers.last_mut()
        {
            transfer.text.extend_from_slice(piece);
        }
        self.settle();
    }

    pub fn finish(&mut self) {
        if self.call(Machine::finish) {
            let end = self.wire.len() + self.waiting();
            let is_holding = self.is_holding();
            let transfer = self
                .transfers
                .last_mut()
                .expect("no message ends that did not begin");
            transfer.is_held = is_holding || transfer.transaction.hand_over;
            transfer.ends_at = (!transfer.is_held).then_some(end);
        }
        self.settle();
    }

    /// The caller permits the end of the first message that waits for that.
    pub fn hand_over(&mut self) {
        let first = self.first_awaiting_permission();
        if self.call(Machine::hand_over) {
            let first = first.expect("a message waits for its hand-over");
            self.transfers[first].is_permitted = true;
        }
        self.settle();
    }

    /// The caller withdraws that message.
    pub fn withdraw(&mut self) {
        let first = self.first_awaiting_permission();
        if self.call(Machine::withdraw) {
            let first = first.expect("a message waits for its hand-over");
            self.transfers[first].is_withdrawn = true;
        }
        self.settle();
    }

    /// Whether the end of a message is held back until its hand-over.
    pub fn awaits_permission(&self) -> bool {
        self.first_awaiting_permission().is_some()
    }

    fn first_awaiting_permission(&self) -> Option<usize> {
        self.transfers.iter().position(Transfer::awaits_permission)
    }

    pub fn reset(&mut self) {
        if self.call(Machine::reset) {
            self.replies += 1;
            self.transfers
                .iter_mut()
                .for_each(|transfer| transfer.is_over = true);
        }
        self.settle();
    }

    pub fn noop(&mut self) {
        self.replies += usize::from(self.call(Machine::noop));
        self.settle();
    }

    pub fn command(&mut self, command: &RawCommand) {
        if self.call(|machine| machine.command(command)) {
            self.replies += 1;
            self.raw.push(command.as_str().to_owned());
        }
        self.settle();
    }

    pub fn quit(&mut self) {
        self.call(Machine::quit);
        self.settle();
    }

    /// The driver gives up.
    pub fn abort(&mut self) {
        let was_over = self.want == Step::Closed;
        let reason = AbortReason::TimedOut("that took too long".into());
        let error = Error::from(self.machine.abort(reason));
        // An earlier refusal is reported first.
        self.settle();
        assert_eq!(self.want, Step::Closed);
        // The end of a session that was over before has told what is unknown.
        assert_eq!(
            error.outcome_unknown(),
            !was_over && self.machine.unconfirmed_messages() > 0
        );
        self.failed(&error);
    }

    /// Checks all that was written, and gives what there is to compare: the events and the bytes.
    pub fn conclude(self) -> (Vec<Observed>, Vec<u8>) {
        // Behind the end of a message there are commands again; where it has none, there is nothing
        // more.
        let behind_data = self.transfers.iter().filter(|transfer| !transfer.in_chunks);
        let messages: Vec<_> = behind_data
            .filter_map(|transfer| {
                Some(transfer.starts_at?..transfer.ends_at.unwrap_or(usize::MAX))
            })
            .collect();
        let said = wire::read(&self.wire, &messages);
        self.check_commands(&said);
        self.check_pace(&said);
        self.check_transactions(&wire::transactions(&said));
        (self.events, self.wire)
    }

    // ---- What must hold ----

    /// Makes a call; one that is out of turn must change nothing.
    fn call(&mut self, call: impl FnOnce(&mut Machine) -> Result<(), ProtocolError>) -> bool {
        let (waiting, unknown) = (self.waiting(), self.outcome_is_unknown());
        let Err(error) = call(&mut self.machine).map_err(Error::from) else {
            return true;
        };
        if error.kind() == ErrorKind::Request {
            assert_eq!(self.waiting(), waiting, "{error}");
            assert_eq!(
                self.machine.step().expect("a bad request ends no session"),
                self.want,
                "{error}"
            );
        } else {
            assert!(!error.outcome_unknown() || unknown, "{error:?}");
        }
        self.failed(&error);
        false
    }

    /// Takes all events there are.
    fn settle(&mut self) {
        loop {
            // A reply has four bytes at least, and makes two events at most.
            assert!(
                self.told <= self.fed / 2,
                "more events than the server can have caused"
            );
            match self.machine.step() {
                Ok(
                    want @ (Step::Wait { .. }
                    | Step::Upgrade
                    | Step::Ready
                    | Step::Body { .. }
                    | Step::Handover
                    | Step::Closed),
                ) => {
                    self.want = want;
                    break;
                }
                Ok(event) => {
                    self.check_event(&event);
                    // The server does not cause that.
                    self.told += usize::from(event != Step::Event(Event::Withdrawn));
                    self.events.push(Observed::Step(event));
                }
                Err(error) => {
                    let error = Error::from(error);
                    let unknown = self.left_in_doubt(&error) > 0;
                    assert_eq!(error.outcome_unknown(), unknown, "{error:?}");
                    // Chunks may go before the replies to what went before them came.
                    let is_data =
                        |transfer: &&Transfer| transfer.starts_at.is_some() && !transfer.in_chunks;
                    if let Some(transfer) = self.replied().filter(is_data) {
                        let expected = match error.phase() {
                            Phase::Handover if transfer.awaits_permission() => Phase::Handover,
                            _ if unknown => Phase::EndOfData,
                            _ => Phase::Body,
                        };
                        assert_eq!(error.phase(), expected, "{error:?}");
                    }
                    self.failed(&error);
                    assert!(
                        matches!(self.machine.step(), Ok(Step::Closed)),
                        "what failed is over"
                    );
                }
            }
        }
        match self.want {
            Step::Upgrade => {
                assert_eq!(
                    self.waiting(),
                    0,
                    "the handshake comes behind all that was said in clear"
                );
                assert!(self.wire.ends_with(b"\r\nSTARTTLS\r\n"));
            }
            Step::Body { .. } => {
                let start = self.wire.len() + self.waiting();
                let is_first = self
                    .transfer()
                    .is_some_and(|transfer| transfer.starts_at.is_none());
                // DATA is answered once all that went before it is.
                let said_data =
                    is_first && !self.is_holding() && self.output().ends_with(b"\r\nDATA\r\n");
                let transfer = self
                    .transfers
                    .last_mut()
                    .expect("a body belongs to a transaction");
                assert!(!transfer.is_over && transfer.ends_at.is_none());
                let asked = transfer.transaction.recipients.len();
                assert!(
                    !transfer.waits() || transfer.told.len() == asked,
                    "the message is asked for too early"
                );
                if is_first {
                    (transfer.starts_at, transfer.in_chunks) = (Some(start), !said_data);
                }
            }
            Step::Ready => {
                if let Some(transfer) = self.replied_mut() {
                    transfer.is_over = transfer.is_doomed;
                }
            }
            Step::Closed => {
                assert_eq!(self.waiting(), 0, "what is over has no more to say");
                // A 421 is no failure. What was handed over behind the message that it answers gets
                // no answer of its own.
                if self.replied().is_some() {
                    assert_eq!(
                        self.machine.unconfirmed_messages(),
                        self.handed_over().count()
                    );
                    self.check_left();
                    self.transfers
                        .iter_mut()
                        .for_each(|transfer| transfer.is_over = true);
                }
            }
            _ => {}
        }
        if self.want == Step::Handover {
            assert_eq!(self.waiting(), 0, "what may be written goes first");
        }
        self.locate();
        let awaiting = self.transfers.iter().filter(|t| t.awaits_permission());
        // After a 421, none of them is sent.
        let held = self.machine.held_messages();
        assert!(held == awaiting.count() || held == 0 && contains(&self.heard, b"421"));
        assert_eq!(self.machine.outcome_unknown(), self.outcome_is_unknown());
        let end = self.wire.len() + self.waiting();
        if self.pace.last().is_none_or(|(before, _)| *before != end) {
            self.pace.push((end, self.machine.replies()));
        }
    }

    /// Whether the end of a message is held back, or was until that was withdrawn.
    fn is_holding(&self) -> bool {
        self.transfers
            .iter()
            .any(|transfer| transfer.is_held && transfer.ends_at.is_none() && !transfer.is_over)
    }

    /// Finds the ends that were released, and the transactions after them, in what was written and
    /// waits to be. No end is there before it was permitted.
    fn locate(&mut self) {
        let has_place = |transfer: &Transfer| transfer.begins_at.is_some();
        if !self.is_holding() && self.transfers.iter().all(has_place) {
            return;
        }
        let output = self.output();
        let mut messages = Vec::new();
        for transfer in self.transfers.iter_mut().filter(|t| !t.in_chunks) {
            let Some(start) = transfer.starts_at else {
                continue;
            };
            if transfer.is_held && transfer.ends_at.is_none() {
                let end = end_of_data(&output[start..]);
                transfer.ends_at = end.map(|end| start + end);
            }
            messages.push(start..transfer.ends_at.unwrap_or(usize::MAX));
        }
        let said = wire::read(&output, &messages);
        let behind = said.iter().skip(1).map(|(at, _)| *at);
        let ends: Vec<usize> = behind.chain([output.len()]).collect();
        let mut transfers = self.transfers.iter_mut();
        let mut current = None;
        for ((at, said), end) in said.iter().zip(ends) {
            match (said, &mut current) {
                (Said::Command(command), _) if command.starts_with("MAIL ") => {
                    current = transfers.next();
                    if let Some(transfer) = &mut current {
                        transfer.begins_at.get_or_insert(*at);
                    }
                }
                (Said::Chunk(chunk), Some(transfer))
                    if transfer.is_held && chunk.is_last && chunk.bytes.len() == chunk.size =>
                {
                    transfer.ends_at.get_or_insert(end);
                }
                _ => {}
            }
        }
        for transfer in self.transfers.iter().filter(|transfer| transfer.is_held) {
            let may_end = transfer.is_permitted || !transfer.transaction.hand_over;
            assert!(
                transfer.ends_at.is_none() || may_end && !transfer.is_withdrawn,
                "an end that was not permitted"
            );
        }
    }

    fn check_event(&mut self, event: &Step) {
        let taken = self.wire.len();
        match event {
            Step::Event(Event::Login { .. }) => {
                self.logins = self
                    .logins
                    .checked_sub(1)
                    .expect("a login that was asked for")
            }
            Step::Event(Event::Reply { .. }) => {
                self.replies = self
                    .replies
                    .checked_sub(1)
                    .expect("a command that was given")
            }
            Step::Event(Event::Sender { reply }) => {
                let transfer = self
                    .replied_mut()
                    .expect("a sender belongs to a transaction");
                assert!(transfer.told.is_empty());
                transfer.is_unopened = !reply.is_positive();
                transfer.is_doomed = transfer.by_steps && !reply.is_positive();
            }
            Step::Event(Event::Recipient { index, reply }) => {
                let open = self.transfers.iter().position(|transfer| !transfer.is_over);
                let open = open.expect("a recipient belongs to a transaction");
                let end = self
                    .transfers
                    .get(open + 1)
                    .and_then(|next| next.begins_at)
                    .map_or(taken, |begins_at| begins_at.min(taken));
                let transfer = &mut self.transfers[open];
                assert!(
                    *index < transfer.transaction.recipients.len() && *index == transfer.told.len(),
                    "{event:?}"
                );
                // Where MAIL still waits, nothing of it has gone.
                let begins_at = transfer.begins_at.unwrap_or(usize::MAX);
                let said = self.wire.get(begins_at..end).unwrap_or_default();
                let offered = contains(said, b"\r\nDATA\r\n") || contains(said, b"\r\nBDAT ");
                assert!(
                    !(transfer.waits() && offered),
                    "the message was offered before every answer"
                );
                transfer.told.push(*index);
                if reply.is_positive() {
                    transfer.accepted.push(*index);
                }
                transfer.is_doomed |= transfer.by_steps
                    && transfer.transaction.all_or_nothing
                    && !reply.is_positive();
            }
            Step::Event(Event::RecipientResult { index, reply }) => {
                assert!(reply.is_positive() || reply.is_transient() || reply.is_permanent());
                let is_lmtp = self.protocol == Protocol::Lmtp;
                let transfer = self
                    .replied_mut()
                    .expect("a verdict is about a message that was begun");
                assert!(
                    transfer.ends_at.is_some_and(|end| taken >= end),
                    "a verdict on what was not handed over"
                );
                assert!(
                    transfer.accepted.contains(index)
                        && transfer.verdicts.iter().all(|(before, _)| before != index)
                );
                assert!(
                    !is_lmtp || transfer.accepted.get(transfer.verdicts.len()) == Some(index),
                    "{event:?}"
                );
                transfer.verdicts.push((*index, reply.is_positive()));
            }
            Step::Event(Event::Accepted { reply }) => {
                assert!(reply.is_positive());
                let is_lmtp = self.protocol == Protocol::Lmtp;
                let transfer = self
                    .replied_mut()
                    .expect("what was sent was begun, and has one outcome");
                assert_eq!(
                    transfer.told.len(),
                    transfer.transaction.recipients.len(),
                    "each recipient has a reply"
                );
                assert!(
                    !transfer.accepted.is_empty(),
                    "sent without an accepted recipient"
                );
                assert!(
                    !transfer.transaction.all_or_nothing || transfer.accepted == transfer.told,
                    "sent to some"
                );
                if is_lmtp || !transfer.verdicts.is_empty() {
                    assert_eq!(
                        transfer.verdicts.len(),
                        transfer.accepted.len(),
                        "each has a verdict"
                    );
                    assert!(
                        transfer.verdicts.iter().any(|(_, positive)| *positive),
                        "sent without an accepted recipient"
                    );
                }
                assert!(
                    transfer.ends_at.is_some_and(|end| taken >= end),
                    "sent, and its last byte was not taken"
                );
                assert!(!transfer.is_withdrawn, "sent, and it was withdrawn");
                (transfer.is_sent, transfer.is_over) = (true, true);
            }
            Step::Event(Event::Withdrawn) => {
                let transfer = self
                    .replied_mut()
                    .expect("what was withdrawn was begun, and has one outcome");
                assert!(transfer.is_withdrawn && transfer.ends_at.is_none());
                transfer.is_over = true;
            }
            Step::Event(Event::Rejected { phase, reply }) => {
                assert!(reply.is_transient() || reply.is_permanent());
                let transfer = self
                    .replied_mut()
                    .expect("what was not sent was begun, and has one outcome");
                assert!(
                    transfer.verdicts.iter().all(|(_, positive)| !positive),
                    "a verdict is final: {event:?}"
                );
                let handed_over = transfer.ends_at.is_some_and(|end| taken >= end);
                assert!(*phase != Phase::EndOfData || handed_over, "{event:?}");
                if !transfer.in_chunks {
                    assert_eq!(*phase == Phase::EndOfData, handed_over, "{event:?}");
                    // A refusal right behind the go-ahead is there before a body was asked for.
                    assert!(
                        *phase == Phase::Body || handed_over || transfer.starts_at.is_none(),
                        "{event:?}"
                    );
                }
                assert!(!transfer.is_withdrawn, "{event:?}");
                transfer.is_over = true;
            }
            other => panic!("an unknown event: {other:?}"),
        }
    }

    fn failed(&mut self, error: &Error) {
        // A call that was out of turn ends nothing.
        if matches!(self.machine.step(), Ok(Step::Closed)) && self.want != Step::Closed {
            assert_eq!(
                self.machine.unconfirmed_messages(),
                self.left_in_doubt(error)
            );
            self.check_left();
            // With PRDR, no recipient has the message before the last reply.
            let is_taken =
                |transfer: &Transfer| transfer.verdicts.iter().any(|(_, positive)| *positive);
            assert!(self.protocol == Protocol::Lmtp || !self.replied().is_some_and(is_taken));
            self.transfers
                .iter_mut()
                .for_each(|transfer| transfer.is_over = true);
        }
        self.events.push(Observed::Failed {
            kind: error.kind(),
            phase: error.phase(),
            message: without_quoted_rest(error),
            reply: error.reply().cloned(),
            outcome_unknown: error.outcome_unknown(),
        });
    }

    fn transfer_of(&self, transaction: Transaction, wishes: &[Wish]) -> Transfer {
        let end = self.wire.len() + self.waiting();
        Transfer::new(transaction, wishes, (!self.is_holding()).then_some(end))
    }

    /// The next one may begin before the server has said what it thinks of the end of one that is
    /// doomed.
    fn open(&mut self, transfer: Transfer) {
        self.transfers
            .iter_mut()
            .for_each(|before| before.is_over |= before.is_doomed);
        self.transfers.push(transfer);
    }

    fn transfer(&self) -> Option<&Transfer> {
        self.transfers.last()
    }

    /// Replies are for the first transaction that has no outcome.
    fn replied(&self) -> Option<&Transfer> {
        self.transfers.iter().find(|transfer| !transfer.is_over)
    }

    fn replied_mut(&mut self) -> Option<&mut Transfer> {
        self.transfers.iter_mut().find(|transfer| !transfer.is_over)
    }

    /// What was written and what waits to be.
    fn output(&self) -> Vec<u8> {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let filled = self.machine.output().io_slices(&mut slices);
        let waiting = slices[..filled].iter().flat_map(|slice| slice.iter());
        self.wire.iter().chain(waiting).copied().collect()
    }

    /// By what went: from the last byte of the message to its outcome.
    fn outcome_is_unknown(&self) -> bool {
        self.handed_over().next().is_some()
    }

    /// How many messages are unknown when the session ends by this error: all that were handed
    /// over, unless the server closed after a 421. Then at most the first has had replies, and is
    /// unknown if one of its recipients was accepted.
    fn left_in_doubt(&self, error: &Error) -> usize {
        let handed_over: Vec<&Transfer> = self.handed_over().collect();
        let left = self.machine.unconfirmed_messages();
        let by_shutdown = error.kind() == ErrorKind::Closed
            && error.reply().is_some_and(|reply| reply.code() == 421);
        if !by_shutdown || left == handed_over.len() {
            return handed_over.len();
        }
        assert!(contains(&self.heard, b"421"));
        assert!(
            handed_over
                .iter()
                .skip(1)
                .all(|transfer| transfer.told.is_empty()),
            "replies come in order"
        );
        usize::from(
            handed_over
                .first()
                .is_some_and(|transfer| !transfer.accepted.is_empty()),
        )
    }

    /// What was refused for certain is not unknown, whatever ends the session.
    fn check_left(&self) {
        assert!(
            !self.handed_over().any(Transfer::is_refused),
            "a refusal was forgotten"
        );
    }

    /// The messages that were given whole and have no outcome.
    fn handed_over(&self) -> impl Iterator<Item = &Transfer> {
        let handed_over =
            |transfer: &&Transfer| transfer.ends_at.is_some_and(|end| self.wire.len() >= end);
        self.transfers
            .iter()
            .filter(|transfer| !transfer.is_over)
            .filter(handed_over)
    }

    /// Whether the server's last reply lacks its end.
    fn has_incomplete_reply(&self) -> bool {
        let mut lines = self.heard.rsplit(|byte| *byte == b'\n');
        let is_cut = lines.next().is_some_and(|rest| !rest.is_empty());
        is_cut || lines.next().is_some_and(|line| line.get(3) == Some(&b'-'))
    }

    /// Each command is one line; none of them shows a secret, or was not requested.
    fn check_commands(&self, said: &[(usize, Said)]) {
        const VERBS: [&str; 12] = [
            "EHLO ",
            "HELO ",
            "LHLO ",
            "STARTTLS",
            "AUTH ",
            "MAIL FROM:<",
            "RCPT TO:<",
            "DATA",
            "RSET",
            "NOOP",
            "QUIT",
            ".",
        ];
        let in_clear = if self.auth_in_clear || (self.protected && self.upgraded_at.is_none()) {
            0
        } else {
            self.upgraded_at.unwrap_or(self.wire.len())
        };
        let mut in_login = false;
        for (at, said) in said {
            let command = match said {
                Said::Command(command) => command,
                Said::Message(_) | Said::Chunk(_) => continue,
                Said::Cut(line) => {
                    // What waited when a 421 came does not go, nor what waits while a reply that was
                    // not asked for is incomplete.
                    let is_ending = self.waiting() > 0 || contains(&self.heard, b"421");
                    assert!(
                        self.want == Step::Closed || is_ending || self.has_incomplete_reply(),
                        "a command without its end: {line:?}"
                    );
                    continue;
                }
            };
            assert!(
                !command.contains(char::is_control),
                "more than text in a line: {command:?}"
            );
            let known = VERBS.iter().any(|verb| command.starts_with(verb));
            let is_raw = self.raw.iter().any(|raw| raw == command);
            let is_response = in_login && (*command == "*" || BASE64.decode(command).is_ok());
            assert!(
                known || is_raw || is_response,
                "{command:?} was not requested"
            );
            if *at < in_clear && !is_raw && !command.contains(":<") {
                assert!(!command.starts_with("AUTH"), "a login in clear");
                for secret in secrets() {
                    assert!(
                        !contains(command.as_bytes(), &secret),
                        "a secret in clear: {command:?}"
                    );
                }
            }
            in_login = command.starts_with("AUTH ") || is_response;
        }
    }

    /// Without PIPELINING, each word waits for the answer to the one before it (RFC 2920, 3.1).
    /// What goes before EHLO was answered does so in any case.
    fn check_pace(&self, said: &[(usize, Said)]) {
        if self.machine.capabilities().offers("PIPELINING") {
            return;
        }
        for (before, (at, _)) in said.iter().enumerate() {
            let replies = self
                .pace
                .iter()
                .find(|(end, _)| end > at)
                .map_or(0, |(_, replies)| *replies);
            assert!(
                replies > before as u64,
                "what stands at {at} was said before its time"
            );
        }
    }

    /// Each transaction is what was asked for, as far as it went, and keeps to what the server
    /// offers.
    fn check_transactions(&self, went: &[Went]) {
        let session = transfer::Session {
            protocol: self.protocol,
            protected: self.protected,
            chunk_size: self.chunk_size,
            server: self.machine.capabilities(),
            heard: &self.heard.to_ascii_uppercase(),
        };
        let max = session.server.limits().mail_max;
        assert!(
            max.is_none_or(|max| went.len() <= max),
            "{} transactions in a session",
            went.len()
        );
        assert!(went.len() <= self.transfers.len());
        for (went, transfer) in went.iter().zip(&self.transfers) {
            transfer.check_commands(went, &session);
            transfer.check_message(went, self.wire.len(), &session);
        }
        // What is open yet when MAIL comes, the server refuses (RFC 5321, 4.1.4), or worse.
        for (went, transfer) in went
            .iter()
            .zip(&self.transfers)
            .take(went.len().saturating_sub(1))
        {
            let is_ended = transfer.is_sent
                || transfer.is_unopened
                || went.is_dropped
                || went.message.is_some();
            assert!(is_ended, "MAIL follows {:?}, which may be open", went.mail);
        }
    }
}

fn secrets() -> [Vec<u8>; 4] {
    [
        PASSWORD.into(),
        BASE64.encode(USER).into(),
        BASE64.encode(PASSWORD).into(),
        BASE64.encode(format!("\0{USER}\0{PASSWORD}")).into(),
    ]
}

/// What came in clear behind the go-ahead for TLS is quoted as far as it was there, which the split
/// decides.
fn without_quoted_rest(error: &Error) -> String {
    match error.message().split_once(": \"") {
        Some((message, _)) if error.phase() == Phase::StartTls => message.to_owned(),
        _ => error.message().to_owned(),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
