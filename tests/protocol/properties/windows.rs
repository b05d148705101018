//! Several messages in flight whose ends are held back: each is handed over or withdrawn at any
//! moment, whatever the server answers meanwhile. The session checks that no end goes before its
//! permission, and that no message that was withdrawn is received.

use envoi::Envelope;
use envoi::proto::{ClientName, Content, Protocol, Settings, StartTls, Step, Transaction};
use proptest::collection::vec;
use proptest::prelude::*;

use super::plan::{Answer, Offer, Plan, address, answer};
use super::server::Server;
use support::session::{Observed, Session, Split};

/// What the caller does next, if it can.
#[derive(Clone, Debug)]
enum Act {
    /// Begins a transaction, and gives its message whole once that is asked for.
    Begin {
        hand_over: bool,
        is_size_known: bool,
        content: Content,
        recipients: usize,
    },
    HandOver,
    Withdraw,
    /// Writes at most this number of bytes.
    Write(usize),
    /// The server answers what has arrived.
    Answer,
}

fn act() -> impl Strategy<Value = Act> {
    let content = prop_oneof![
        2 => Just(Content::SevenBit),
        1 => Just(Content::Binary),
    ];
    let begin = (
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.7),
        content,
        1usize..3,
    );
    let begin = begin.prop_map(
        |(hand_over, is_size_known, content, recipients)| Act::Begin {
            hand_over,
            is_size_known,
            content,
            recipients,
        },
    );
    prop_oneof![
        4 => begin,
        2 => Just(Act::HandOver),
        1 => Just(Act::Withdraw),
        2 => prop_oneof![Just(usize::MAX), 1usize..100].prop_map(Act::Write),
        2 => Just(Act::Answer),
    ]
}

fn plan(pipelining: bool, chunking: bool, answers: Vec<Answer>) -> Plan {
    let others = match chunking {
        true => vec!["CHUNKING", "BINARYMIME"],
        false => Vec::new(),
    };
    let offer = Offer {
        pipelining,
        starttls: false,
        eight_bit: true,
        others,
    };
    // The greeting and EHLO are answered as they should be.
    let apt = [Answer::Apt, Answer::Apt];
    Plan {
        protocol: Protocol::Smtp,
        starttls: StartTls::Never,
        secure: false,
        auth_in_clear: false,
        mechanism: None,
        chunk_size: 3,
        messages: Vec::new(),
        offers: [offer.clone(), offer],
        answers: apt.into_iter().chain(answers).collect(),
        always_goes_ahead: false,
        is_patient: true,
    }
}

const MESSAGE: &[u8] = b"Subject: x\r\n\r\n.\r\n";

/// Gives the whole message and its end, as far as they are asked for.
fn give(session: &mut Session, is_given: &mut bool) {
    if matches!(session.want, Step::Body { .. }) && !*is_given {
        session.body(MESSAGE);
        *is_given = true;
    }
    if matches!(session.want, Step::Body { .. }) && *is_given {
        session.finish();
    }
}

fn play(plan: &Plan, acts: &[Act], split: Split) -> (Vec<Observed>, Vec<u8>) {
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    settings.starttls = StartTls::Never;
    settings.chunk_size = plan.chunk_size;
    let mut session = Session::new(settings, split);
    let mut server = Server::new(plan);
    let greeting = server.respond(vec!["220 mail.example.org ESMTP".into()]);
    session.feed(&greeting);
    let exchange = |session: &mut Session, server: &mut Server| {
        let said = server.answer(&session.wire);
        session.feed(&said);
        if server.is_gone {
            session.end();
        }
    };
    session.take(usize::MAX);
    exchange(&mut session, &mut server);
    let mut is_given = false;
    for act in acts {
        match *act {
            Act::Begin {
                hand_over,
                is_size_known,
                content,
                recipients,
            } => {
                let recipients: Vec<_> = (0..recipients).map(address).collect();
                let envelope = Envelope::new(None, recipients).unwrap();
                let mut transaction = Transaction::new(&envelope);
                transaction.hand_over = hand_over;
                transaction.size = is_size_known.then_some(MESSAGE.len() as u64);
                transaction.content = content;
                is_given &= !session.begin(transaction, &[]);
            }
            Act::HandOver => session.hand_over(),
            Act::Withdraw => session.withdraw(),
            Act::Write(most) => session.take(most),
            Act::Answer => exchange(&mut session, &mut server),
        }
        give(&mut session, &mut is_given);
    }
    // Then all that is left is handed over.
    for _ in 0..1000 {
        session.take(usize::MAX);
        exchange(&mut session, &mut server);
        give(&mut session, &mut is_given);
        match session.want {
            Step::Closed => return session.conclude(),
            Step::Handover => session.hand_over(),
            Step::Ready if session.waiting() == 0 => session.quit(),
            // What the server said was no answer, and no more comes.
            Step::Wait { .. } if session.waiting() == 0 => session.end(),
            _ => {}
        }
    }
    panic!("the session does not end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_message_ends_before_its_handover(
        acts in vec(act(), 1..40),
        (pipelining, chunking) in (prop::bool::weighted(0.8), prop::bool::weighted(0.8)),
        answers in vec(answer(), 0..30),
        lengths in vec(1usize..40, 1..6),
    ) {
        let plan = plan(pipelining, chunking, answers);
        let (events, wire) = play(&plan, &acts, Split::Nowhere);
        for split in [Split::Everywhere, Split::Into(lengths)] {
            let (split_events, split_wire) = play(&plan, &acts, split);
            prop_assert_eq!(&split_events, &events);
            prop_assert!(split_wire == wire, "the same bytes go");
        }
    }
}
