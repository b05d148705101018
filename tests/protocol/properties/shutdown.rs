//! Several messages in flight, and a server that ends the session by 421, breaks down, or continues
//! after a 421: the outcome of each message is what the server did with it, or unknown.

use std::collections::HashSet;

use envoi::proto::{ClientName, Event, Machine, Settings, Step, Transaction};
use envoi::{Address, Envelope};
use proptest::collection::vec;
use proptest::prelude::*;

/// What the server does about a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Accept,
    Refuse,
    /// 421, and closes without another look at what follows.
    Close,
    /// 421 as a refusal of this command alone.
    GoOn,
    /// Accepts, and is gone before it can say so.
    BreakDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Sent,
    NotSent,
    Unknown,
}

const MESSAGES: usize = 4;
const RECIPIENTS: usize = 2;

fn settle(machine: &mut Machine) {
    while !machine.output().is_empty() {
        machine.wrote(machine.output().front().len());
    }
}

/// A machine that has handed over all messages.
fn all_under_way() -> Machine {
    let mut machine = Machine::new(Settings::new(ClientName::new("me").unwrap()));
    let mut greeting = [
        &b"220 hello\r\n"[..],
        b"250-hello\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
    ]
    .into_iter();
    while machine.step().unwrap() != Step::Ready {
        settle(&mut machine);
        if let Some(bytes) = greeting.next() {
            assert_eq!(machine.input(bytes), bytes.len());
        }
    }
    let to = ["a@example.com", "b@example.com"].map(|to| Address::new(to).unwrap());
    for _ in 0..MESSAGES {
        let mut transaction = Transaction::new(&Envelope::new(None, to.clone()).unwrap());
        transaction.size = Some(3);
        machine.begin(transaction).unwrap();
        assert!(matches!(machine.step(), Ok(Step::Body { .. })));
        machine.body("x\r\n").unwrap();
        machine.finish().unwrap();
    }
    let _ = machine.step().unwrap();
    settle(&mut machine);
    machine
}

/// The replies, the messages that were accepted, and whether the server closed because of a 421.
fn serve(acts: &[Act]) -> (String, HashSet<usize>, bool) {
    let (mut replies, mut delivered) = (String::new(), HashSet::new());
    let mut acts = acts.iter().copied();
    for message in 0..MESSAGES {
        let (mut is_open, mut accepted) = (false, 0);
        let verbs = ["RSET"]
            .into_iter()
            .skip(usize::from(message == 0))
            .chain(["MAIL"]);
        for verb in verbs.chain(["RCPT"; RECIPIENTS]).chain(["BDAT"]) {
            let is_in_order = match verb {
                "RCPT" => is_open,
                "BDAT" => accepted > 0,
                _ => true,
            };
            let act = acts.next().unwrap_or(Act::Accept);
            let is_accepted = is_in_order && matches!(act, Act::Accept | Act::BreakDown);
            match verb {
                "MAIL" => is_open = is_accepted,
                "RCPT" => accepted += usize::from(is_accepted),
                "BDAT" if is_accepted => drop(delivered.insert(message)),
                _ => {}
            }
            match act {
                Act::BreakDown => return (replies, delivered, false),
                Act::Close => return (replies + "421 4.3.2 Bye\r\n", delivered, true),
                Act::GoOn => replies += "421 4.7.0 Not this one\r\n",
                // A server that does not know RSET is none.
                Act::Refuse if verb != "RSET" => replies += "550 5.7.1 No\r\n",
                _ if !is_in_order => replies += "503 5.5.1 Out of order\r\n",
                _ => replies += "250 2.0.0 Ok\r\n",
            }
        }
    }
    (replies, delivered, false)
}

fn events(mut machine: Machine, replies: &str, split: usize) -> Vec<Seen> {
    let mut told = Vec::new();
    for piece in replies.as_bytes().chunks(split) {
        assert_eq!(machine.input(piece), piece.len());
        collect(&mut machine, &mut told);
    }
    machine.input_ended();
    collect(&mut machine, &mut told);
    assert_eq!(machine.step().unwrap(), Step::Closed);
    let unknown = machine.unconfirmed_messages();
    let left = MESSAGES - told.len();
    told.extend((0..left).map(|n| {
        if n < unknown {
            Seen::Unknown
        } else {
            Seen::NotSent
        }
    }));
    told
}

fn collect(machine: &mut Machine, told: &mut Vec<Seen>) {
    loop {
        assert!(told.len() <= MESSAGES);
        match machine.step() {
            Ok(Step::Event(Event::Accepted { .. })) => told.push(Seen::Sent),
            Ok(Step::Event(Event::Rejected { .. })) => told.push(Seen::NotSent),
            Ok(Step::Wait { .. } | Step::Ready | Step::Closed) | Err(_) => break,
            Ok(_) => {}
        }
        settle(machine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn each_reported_outcome_is_what_the_server_did(
        acts in vec(prop_oneof![
            12 => Just(Act::Accept),
            3 => Just(Act::Refuse),
            1 => Just(Act::Close),
            1 => Just(Act::GoOn),
            1 => Just(Act::BreakDown),
        ], 0..20),
        split in 1usize..60,
    ) {
        // A server that does not end the session by its 421 and breaks down later is none that SMTP
        // has words for.
        let goes_on = acts.iter().position(|act| *act == Act::GoOn);
        let breaks_down = acts.iter().position(|act| *act == Act::BreakDown);
        prop_assume!(goes_on.zip(breaks_down)
            .is_none_or(|(goes_on, breaks_down)| goes_on > breaks_down));
        let (replies, delivered, by_shutdown) = serve(&acts);
        let told = events(all_under_way(), &replies, split);
        for (message, told) in told.iter().enumerate() {
            match told {
                Seen::Sent => prop_assert!(delivered.contains(&message), "{told:?}: {replies}"),
                Seen::NotSent => prop_assert!(!delivered.contains(&message), "{told:?}: {replies}"),
                Seen::Unknown => {}
            }
        }
        let unknown = told.iter().filter(|told| **told == Seen::Unknown).count();
        prop_assert!(!by_shutdown || unknown <= 1, "{unknown} unknown: {replies}");
    }
}
