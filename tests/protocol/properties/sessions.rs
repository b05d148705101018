//! Whole sessions: a server that answers as it was told, well or badly, and a client that sends
//! messages. However the server's bytes are split, the same happens.

use std::collections::VecDeque;

use envoi::proto::{
    ClientName, Content, Event, Mechanism, RawCommand, Settings, StartTls, Step, Transaction,
};
use envoi::{Address, Envelope, Phase};
use proptest::collection::vec;
use proptest::prelude::*;

use super::plan::{Answer, FOR_WISHES, HandOver, Message, Plan, address, plan};
use super::server::Server;
use support::session::{Observed, Session, Split, Wish, normalised};

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

fn transaction(message: &Message) -> Transaction {
    let mut transaction = if message.step_by_step {
        Transaction::open(Some(address(0)))
    } else {
        Transaction::new(&Envelope::new(None, message.recipients.clone()).unwrap())
    };
    transaction.all_or_nothing = message.all_or_nothing;
    transaction.content = message.content;
    transaction.hand_over = message.hand_over.is_some();
    let text = message.pieces.concat();
    let size = if message.content == Content::Binary {
        text.len()
    } else {
        normalised(&text).len()
    };
    transaction.size = message.is_size_known.then_some(size as u64);
    transaction
}

/// Hands a message over, or withdraws it.
fn decide(session: &mut Session, hand_over: Option<HandOver>) {
    match hand_over {
        Some(it) if it.is_withdrawn => session.withdraw(),
        Some(_) => session.hand_over(),
        None => {}
    }
}

fn play(plan: &Plan, split: Split) -> (Vec<Observed>, Vec<u8>) {
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.protocol = plan.protocol;
    settings.starttls = plan.starttls;
    settings.secure = plan.secure;
    settings.auth_in_clear = plan.auth_in_clear;
    // More than one good reply has, and less than all those of a session.
    settings.limits.reply_bytes = 700;
    // A message has not more of them than the rounds below can play.
    let largest = plan
        .messages
        .iter()
        .map(|message| message.pieces.concat().len())
        .max();
    settings.chunk_size = plan.chunk_size.max(largest.unwrap_or_default() / 100);
    let mut session = Session::new(settings, split);
    let mut server = Server::new(plan);
    let mut tasks = tasks(plan);
    let (mut current, mut given) = (0, 0);

    let greeting = server.respond(vec!["220 mail.example.org ESMTP".into()]);
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
                    _ if given == message.pieces.len() => {
                        session.finish();
                        decide(&mut session, message.hand_over.filter(|it| it.is_at_once));
                    }
                    _ => session.body(&message.pieces[given]),
                }
                given += 1;
            }
            Step::Handover => decide(&mut session, plan.messages[current].hand_over),
            _ => match tasks.pop_front() {
                None => return session.conclude(),
                Some(Task::Login(mechanism)) => session.login(mechanism),
                Some(Task::Noop) => session.noop(),
                Some(Task::Command) => session.command(&RawCommand::new("VRFY you").unwrap()),
                Some(Task::Begin(index)) => {
                    (current, given) = (index, 0);
                    session.begin(
                        transaction(&plan.messages[index]),
                        &plan.messages[index].wishes,
                    );
                }
                Some(Task::Mail(index)) => {
                    (current, given) = (index, 0);
                    session.mail(
                        transaction(&plan.messages[index]),
                        &plan.messages[index].wishes,
                    );
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_events(plan in plan(), lengths in vec(1usize..40, 1..6)) {
        let (events, wire) = play(&plan, Split::Nowhere);
        for split in [Split::Everywhere, Split::Into(lengths.clone())] {
            let (split_events, split_wire) = play(&plan, split);
            prop_assert_eq!(&split_events, &events);
            prop_assert!(split_wire == wire, "the same bytes go");
        }
        // What is answered in between may have gone before the session fails, and changes nothing
        // else.
        let (split_events, split_wire) = play(&plan, Split::AndAnswered(lengths));
        prop_assert_eq!(&split_events, &events);
        prop_assert!(split_wire.starts_with(&wire), "the same bytes go first");
    }

    #[test]
    fn a_correct_server_gets_every_message(mut plan in plan(), lengths in vec(1usize..40, 1..6)) {
        plan.answers.retain(|answer| matches!(answer, Answer::Apt | Answer::InLines(_)));
        let has_tls = plan.secure || plan.starttls != StartTls::Never;
        for message in &mut plan.messages {
            message.early = None;
            // After DATA, a message that is withdrawn ends the session.
            message.hand_over = message.hand_over.map(|it| HandOver {
                is_withdrawn: false,
                ..it
            });
            message.wishes.retain(|wish| has_tls || *wish != Wish::RequireTls);
        }
        let is_binary = plan.messages.iter().any(|message| message.content == Content::Binary);
        let is_special = plan.messages.iter().any(|message| !message.wishes.is_empty());
        for offer in &mut plan.offers {
            (offer.starttls, offer.eight_bit) = (true, true);
            offer.others.retain(|keyword| *keyword != "SIZE 1000" && !keyword.to_uppercase()
                .starts_with("LIMITS"));
            offer.others.extend(is_binary.then_some(["CHUNKING", "BINARYMIME"]).into_iter()
                .flatten());
            offer.others.extend(is_special.then_some(FOR_WISHES).into_iter().flatten());
        }
        let (events, wire) = play(&plan, Split::AndAnswered(lengths));
        let is_accepted = |event: &&Observed| {
            matches!(event, Observed::Step(Step::Event(Event::Accepted { .. })))
        };
        let sent = events.iter().filter(is_accepted).count();
        prop_assert_eq!(sent, plan.messages.len(), "{:?}", events);
        // A login may not be offered, or not be allowed in clear.
        let is_failure = |event: &Observed| match event {
            Observed::Failed { phase, .. } => *phase != Phase::Auth,
            Observed::Step(_) => false,
        };
        prop_assert!(!events.iter().any(is_failure), "{:?}", events);
        prop_assert!(wire.ends_with(b"\r\nQUIT\r\n"));
    }
}

/// The go-ahead for TLS came together with the offer, before STARTTLS had gone.
#[test]
fn nothing_received_in_clear_survives_the_handshake() {
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.starttls = StartTls::Required;
    let mut session = Session::new(settings, Split::Nowhere);
    session.feed(b"220 mail.example.org\r\n");
    session.take(usize::MAX);
    session.feed(b"250-mail.example.org\r\n250 STARTTLS\r\n220 Go ahead\r\n");
    assert_eq!(session.want, Step::Closed, "STARTTLS was not written");
    assert_eq!(session.conclude().1, b"EHLO client.example.org\r\n");
}

/// What was announced with BDAT is a message to the server as soon as it is there, whether its end
/// was given or not.
#[test]
fn a_chunk_is_not_written_whole_before_finish() {
    let session_in_chunk = || {
        let mut session = Session::new(
            Settings::new(ClientName::new("client.example.org").unwrap()),
            Split::Nowhere,
        );
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
        assert!(
            session.wire.ends_with(b"BDAT 7 LAST\r\n"),
            "nothing is left to be told to the server but the end"
        );
        session
    };
    let mut session = session_in_chunk();
    session.finish();
    session.take(usize::MAX);
    assert!(session.wire.ends_with(b"BDAT 7 LAST\r\nhello\r\n"));
    session.feed(b"250 2.0.0 Ok: queued\r\n");
    assert!(matches!(
        session.conclude().0.last(),
        Some(Observed::Step(Step::Event(Event::Accepted { .. })))
    ));

    // More than was announced: the error says that nothing was sent, and so it is.
    let mut session = session_in_chunk();
    session.body(b"more");
    session.take(usize::MAX);
    assert_eq!(session.want, Step::Closed);
    assert!(session.wire.ends_with(b"BDAT 7 LAST\r\n"));
}
