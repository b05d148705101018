//! How sessions end before their time, and what is known then.

use envoi::proto::{
    AbortReason, Event, Machine, Mechanism, ProtocolError, RawCommand, StartTls, Step,
};
use envoi::{Credentials, Error, ErrorKind, Phase};

use support::address;

use super::{Client, transaction};

#[test]
fn a_failure_names_the_awaited_reply() {
    let lost = |client: &mut Client| client.end().message().to_owned();
    assert_eq!(
        lost(&mut Client::new(|_| {})),
        "the connection ended before the greeting (220) came"
    );
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.feed("220 hello\r\n").unwrap();
    client
        .feed("250-mail.example.org\r\n250 STARTTLS\r\n")
        .unwrap();
    assert_eq!(
        lost(&mut client),
        "the connection ended before the go-ahead for TLS (220) came"
    );
    let mut client = Client::new(|_| {});
    client.feed("220 hello\r\n").unwrap();
    client.feed("500 what?\r\n").unwrap();
    assert_eq!(
        lost(&mut client),
        "the connection ended before the answer to HELO (250) came"
    );
    for (cut, shown) in [("220 hel", "220 hel"), ("220-hello\r\n", "220 hello")] {
        let mut client = Client::new(|_| {});
        client.feed(cut).unwrap();
        assert_eq!(
            lost(&mut client),
            format!("the connection ended in the middle of a reply: {shown:?}")
        );
    }

    type Call = fn(&mut Machine) -> Result<(), ProtocolError>;
    let calls: [(Call, &str, Phase); 6] = [
        (
            |machine| machine.noop(),
            "the answer to NOOP (250)",
            Phase::Noop,
        ),
        (
            |machine| machine.reset(),
            "the answer to RSET (250)",
            Phase::Reset,
        ),
        (
            |machine| machine.command(&RawCommand::new("VRFY you").unwrap()),
            "the answer to the command",
            Phase::Command,
        ),
        (
            |machine| machine.mail(address("a@example.org").into()),
            "the answer to MAIL (250)",
            Phase::Mail,
        ),
        (
            |machine| machine.mail(None.into()),
            "the answer to MAIL (250)",
            Phase::Mail,
        ),
        (
            |machine| machine.login(Mechanism::Plain, &Credentials::new("u", "p")),
            "a challenge (334) or the result of the login (235)",
            Phase::Auth,
        ),
    ];
    for (call, awaited, phase) in calls {
        let mut client = Client::ready_with(&["AUTH PLAIN"], |settings| settings.secure = true);
        call(&mut client.machine).unwrap();
        let error = client.end();
        assert_eq!(
            error.message(),
            format!("the connection ended before {awaited} came")
        );
        assert_eq!((error.kind(), error.phase()), (ErrorKind::Closed, phase));
    }
    let error = Client::ready(&[]).end();
    assert_eq!(
        (error.message(), error.phase()),
        ("the server closed the connection", Phase::Command)
    );
    let mut client = Client::ready(&[]);
    client.go_ahead();
    client.machine.body("Subject: x\r\n").unwrap();
    let error = client.end();
    assert_eq!(
        (error.message(), error.phase()),
        (
            "the connection ended in the middle of the message",
            Phase::Body
        )
    );
    let said = |client: &Client| {
        client
            .machine
            .transcript()
            .lines()
            .last()
            .unwrap()
            .to_string()
    };
    assert_eq!(said(&client), "-- 12 bytes of the message, and not its end");
    let mut client = Client::ready(&[]);
    client.go_ahead();
    client.machine.finish().unwrap();
    assert_eq!(
        lost(&mut client),
        "the connection ended before the server confirmed the message"
    );
    assert_eq!(said(&client), "-- the connection ended");
}

/// The driver's own reason has the phase, too.
#[test]
fn an_aborted_session_reports_its_phase() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.feed("220 hello\r\n").unwrap();
    client
        .feed("250-mail.example.org\r\n250 STARTTLS\r\n")
        .unwrap();
    assert_eq!(client.feed("220 Go ahead\r\n").unwrap(), [Step::Upgrade]);
    assert_eq!(
        client
            .machine
            .abort(AbortReason::TimedOut("no handshake".into()))
            .phase(),
        Phase::Tls
    );
    assert_eq!(client.steps().unwrap(), [Step::Closed]);
}

#[test]
fn the_close_after_quit_is_no_error() {
    for last_words in ["", "221 bye\r\n", "421 4.3.2 bye\r\n", "500 what?\r\n"] {
        let mut client = Client::ready(&[]);
        client.machine.quit().unwrap();
        client.steps().unwrap();
        client.read(last_words.as_bytes());
        client.machine.input_ended();
        assert_eq!(client.steps().unwrap(), [Step::Closed], "{last_words:?}");
        assert!(client.wire.ends_with("QUIT\r\n"));
        let error = client.machine.noop().map_err(Error::from).unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Closed, "the session is over")
        );
    }
}

#[test]
fn a_reply_of_another_kind_is_a_violation() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.feed("220 hello\r\n").unwrap();
    client
        .feed("250-mail.example.org\r\n250 STARTTLS\r\n")
        .unwrap();
    assert_eq!(
        client.feed("250 Ok\r\n").unwrap_err().kind(),
        ErrorKind::Protocol
    );
    assert_eq!(
        Client::new(|_| {}).feed("250 Ok\r\n").unwrap_err().kind(),
        ErrorKind::Protocol
    );
    let mut client = Client::new(|_| {});
    client.feed("220 hello\r\n").unwrap();
    assert_eq!(
        client.feed("354 Go\r\n").unwrap_err().kind(),
        ErrorKind::Protocol
    );
    for answers in [
        &["354 Go\r\n"][..],
        &["250 Ok\r\n", "354 Go\r\n"],
        &["250 Ok\r\n", "250 Ok\r\n", "250 Ok\r\n"],
        // To RSET, which the machine says of its own accord.
        &["250 Ok\r\n", "550 No\r\n", "500 what?\r\n"],
        &["250 Ok\r\n", "550 No\r\n", "354 Go\r\n"],
    ] {
        let mut client = Client::ready(&[]);
        client.machine.begin(transaction()).unwrap();
        let (last, before) = answers.split_last().unwrap();
        before
            .iter()
            .for_each(|answer| drop(client.feed(answer).unwrap()));
        assert_eq!(
            client.feed(last).unwrap_err().kind(),
            ErrorKind::Protocol,
            "{answers:?}"
        );
    }
    // To the lone dot after a 354 without recipients.
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.begin(transaction()).unwrap();
    client.feed("250 Ok\r\n550 No\r\n354 Go\r\n").unwrap();
    assert_eq!(
        client.feed("354 Go\r\n").unwrap_err().kind(),
        ErrorKind::Protocol
    );
}

/// What was handed over whole and has no answer.
#[test]
fn messages_without_a_final_reply_are_counted() {
    let two_under_way = || {
        let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
        (0..2).for_each(|_| client.give_a_chunk());
        client.steps().unwrap();
        client
    };
    let mut client = two_under_way();
    assert!(client.end().outcome_unknown());
    assert_eq!(client.machine.unconfirmed_messages(), 2);
    let mut client = two_under_way();
    client.feed("250 Ok\r\n250 Ok\r\n250 queued\r\n").unwrap();
    assert!(client.end().outcome_unknown());
    assert_eq!(client.machine.unconfirmed_messages(), 1);

    let mut client = Client::ready(&[]);
    client.end();
    assert_eq!(client.machine.unconfirmed_messages(), 0);
}

/// Its second message was given whole and not written whole when 421 came.
#[test]
fn no_transaction_starts_after_421() {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    (0..2).for_each(|_| client.give_a_chunk());
    client.read(b"421 Bye\r\n");
    assert!(matches!(
        client.machine.step().unwrap(),
        Step::Event(Event::Rejected {
            phase: Phase::Mail,
            ..
        })
    ));
    assert!(!client.machine.may_begin());
    assert_eq!(
        client
            .machine
            .step()
            .map_err(Error::from)
            .unwrap_err()
            .kind(),
        ErrorKind::Closed
    );
    assert!(!client.machine.may_begin());
}

/// A server that closes after 421 has not processed what it did not answer (RFC 5321, 3.8; RFC
/// 2920, 3.2).
#[test]
fn unanswered_messages_are_not_sent_after_421_and_close() {
    let not_sent = |steps: &[Step], phases: &[Phase]| {
        let told = steps.iter().filter_map(|step| match step {
            Step::Event(Event::Rejected { phase, .. }) => Some(*phase),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), phases, "{steps:?}");
    };
    // 421 to MAIL, RCPT, the message or RSET, and how the first two of four messages end.
    for (replies, phases) in [
        ("421 Bye\r\n", &[Phase::Mail][..]),
        ("250 Ok\r\n421 Bye\r\n", &[Phase::Rcpt]),
        (
            "250 Ok\r\n250 Ok\r\n421 Bye\r\n",
            &[Phase::EndOfData, Phase::Mail],
        ),
        (
            "250 Ok\r\n250 Ok\r\n550 No\r\n421 Bye\r\n",
            &[Phase::EndOfData, Phase::Mail],
        ),
        (
            "250 Ok\r\n250 Ok\r\n550 No\r\n250 Ok\r\n421 Bye\r\n",
            &[Phase::EndOfData, Phase::Mail],
        ),
        // It goes on, and closes then.
        (
            "421 Bye\r\n503 No\r\n503 No\r\n250 Ok\r\n421 Bye\r\n",
            &[Phase::Mail, Phase::Mail],
        ),
    ] {
        let mut client = four_under_way();
        let mut steps = client.feed(replies).unwrap();
        assert!(
            matches!(steps.pop(), Some(Step::Wait { .. })),
            "{replies:?}"
        );
        assert!(
            client.machine.outcome_unknown() && !client.machine.may_begin(),
            "{replies:?}"
        );
        client.machine.input_ended();
        let error = loop {
            match client.machine.step() {
                Ok(step) => steps.push(step),
                Err(error) => break Error::from(error),
            }
        };
        not_sent(&steps, phases);
        assert_eq!(
            (error.kind(), error.reply().unwrap().code()),
            (ErrorKind::Closed, 421),
            "{replies:?}"
        );
        assert!(
            error.is_transient() && !error.outcome_unknown(),
            "{replies:?}"
        );
        assert_eq!(
            error.message(),
            "the server ended the session before it took the message"
        );
        assert_eq!(
            (
                client.machine.step().unwrap(),
                client.machine.unconfirmed_messages()
            ),
            (Step::Closed, 0)
        );
    }
}

/// As Exim does beyond its limit of messages in a connection: it answers each command, and does not
/// close.
#[test]
fn replies_after_421_are_read() {
    let mut client = four_under_way();
    let refused = "421 Too many messages in this connection\r\n503 No MAIL\r\n503 No RCPT\r\n";
    let steps = client
        .feed(&format!("{refused}250 Ok\r\n").repeat(4))
        .unwrap();
    let not_sent = |step: &&Step| match step {
        Step::Event(Event::Rejected { phase, reply }) => {
            *phase == Phase::Mail && reply.code() == 421
        }
        _ => false,
    };
    assert_eq!(steps.iter().filter(not_sent).count(), 4, "{steps:?}");
    assert_eq!(
        (steps.last(), client.machine.unconfirmed_messages()),
        (Some(&Step::Closed), 0)
    );

    // One that takes the next message in spite of it.
    let mut client = four_under_way();
    let steps = client
        .feed(&format!("{refused}250 Ok\r\n{}", "250 Ok\r\n".repeat(3)))
        .unwrap();
    assert!(
        matches!(
            steps[..],
            [.., Step::Event(Event::Accepted { .. }), Step::Wait { .. }]
        ),
        "{steps:?}"
    );
    let said = client.wire.clone();
    client.machine.input_ended();
    assert!(matches!(
        client.machine.step(),
        Ok(Step::Event(Event::Rejected {
            phase: Phase::Mail,
            ..
        }))
    ));
    assert_eq!(
        client
            .machine
            .step()
            .map_err(Error::from)
            .unwrap_err()
            .reply()
            .unwrap()
            .code(),
        421
    );
    assert_eq!(
        (client.machine.unconfirmed_messages(), client.wire),
        (0, said)
    );
}

/// The answer to the message itself is all that is missing.
#[test]
fn a_message_with_an_accepted_recipient_is_unknown_after_421() {
    for replies in [
        "421 Bye\r\n503 No\r\n503 No\r\n250 Ok\r\n250 Ok\r\n250 Ok\r\n",
        "550 No\r\n503 No\r\n503 No\r\n421 Bye\r\n250 Ok\r\n250 Ok\r\n",
    ] {
        let mut client = four_under_way();
        client.feed(replies).unwrap();
        let error = client.end();
        assert!(
            error.outcome_unknown() && error.reply().unwrap().code() == 421,
            "{error}"
        );
        assert_eq!(
            (error.kind(), client.machine.unconfirmed_messages()),
            (ErrorKind::Closed, 1),
            "{error}"
        );
    }
    // Of two recipients one was accepted, and 421 came for the other.
    let two_recipients = || {
        let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
        let mut transaction = transaction();
        transaction.recipients.push(address("b@example.com"));
        transaction.size = Some(3);
        client.machine.begin(transaction).unwrap();
        client.steps().unwrap();
        client.machine.body("x\r\n").unwrap();
        client.machine.finish().unwrap();
        client
    };
    let mut client = two_recipients();
    let steps = client
        .feed("250 Ok\r\n250 Ok\r\n421 Bye\r\n250 queued\r\n")
        .unwrap();
    assert!(
        matches!(
            steps[..],
            [.., Step::Event(Event::Accepted { .. }), Step::Closed]
        ),
        "{steps:?}"
    );
    let mut client = two_recipients();
    client.feed("250 Ok\r\n250 Ok\r\n421 Bye\r\n").unwrap();
    assert!(client.end().outcome_unknown());
    // Neither was accepted.
    let mut client = two_recipients();
    client.feed("250 Ok\r\n421 Bye\r\n").unwrap();
    client.machine.input_ended();
    assert!(matches!(
        client.machine.step(),
        Ok(Step::Event(Event::Rejected {
            phase: Phase::Rcpt,
            ..
        }))
    ));
    assert_eq!(
        (
            client.machine.step().unwrap(),
            client.machine.unconfirmed_messages()
        ),
        (Step::Closed, 0)
    );
}

/// That is no close by the server. The first one was refused by the 421.
#[test]
fn a_timeout_or_violation_after_421_leaves_messages_unknown() {
    let mut client = four_under_way();
    client.feed("421 Bye\r\n").unwrap();
    assert!(
        client
            .machine
            .abort(AbortReason::TimedOut("no more comes".into()))
            .outcome_unknown()
    );
    assert_eq!(client.machine.unconfirmed_messages(), 3);
    let mut client = four_under_way();
    client.feed("421 Bye\r\n").unwrap();
    client.read(b"354 Go\r\n");
    assert!(matches!(
        client.machine.step(),
        Ok(Step::Event(Event::Rejected {
            phase: Phase::Mail,
            ..
        }))
    ));
    let error = client.steps().unwrap_err();
    assert_eq!(
        (error.kind(), client.machine.unconfirmed_messages()),
        (ErrorKind::Protocol, 3)
    );
}

/// It fails by the 421 to the message before it, and is not unknown.
#[test]
fn a_message_not_fully_written_is_not_sent() {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    client.give_a_chunk();
    client.machine.begin(transaction()).unwrap();
    let steps = client.feed("250 Ok\r\n250 Ok\r\n421 Bye\r\n");
    let error = steps.unwrap_err();
    assert_eq!(
        (
            error.kind(),
            error.outcome_unknown(),
            client.machine.unconfirmed_messages()
        ),
        (ErrorKind::Closed, false, 0)
    );
}

fn four_under_way() -> Client {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    (0..4).for_each(|_| client.give_a_chunk());
    client.steps().unwrap();
    client
}

/// Its only recipient was refused, and the server closed before it said so of the chunk that had
/// gone, too: nothing is unknown.
#[test]
fn a_refusal_stands_after_the_whole_message_was_written() {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    client.give_a_chunk();
    client.feed("250 Ok\r\n550 No\r\n").unwrap();
    assert!(client.machine.outcome_unknown());
    client.machine.input_ended();
    assert!(matches!(
        client.machine.step(),
        Ok(Step::Event(Event::Rejected {
            phase: Phase::Rcpt,
            ..
        }))
    ));
    assert!(!client.machine.outcome_unknown());
    let error = client.machine.step().map_err(Error::from).unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome_unknown()),
        (ErrorKind::Closed, false)
    );
}

/// So it is where the driver gives up.
#[test]
fn a_refusal_stands_after_a_timeout() {
    for (replies, phase, code) in [
        ("450 Later\r\n", Phase::Mail, 450),
        ("550 No\r\n503 MAIL first\r\n", Phase::Mail, 550),
        ("250 Ok\r\n550 No\r\n", Phase::Rcpt, 550),
    ] {
        for extensions in [&["PIPELINING", "CHUNKING"][..], &["PIPELINING"]] {
            let mut client = Client::ready(extensions);
            if extensions.len() == 2 {
                client.give_a_chunk();
            } else {
                client.machine.begin(transaction()).unwrap();
            }
            client.feed(replies).unwrap();
            let error = client
                .machine
                .abort(AbortReason::TimedOut("no more comes".into()));
            assert!(!error.outcome_unknown(), "{replies:?}");
            let refused = client.steps().unwrap();
            assert!(
                matches!(
                    &refused[..],
                    [Step::Event(Event::Rejected { phase: at, reply }), Step::Closed]
                        if *at == phase && reply.code() == code
                ),
                "{replies:?}: {refused:?}"
            );
            assert_eq!(client.machine.unconfirmed_messages(), 0);
            assert_eq!(
                client
                    .machine
                    .quit()
                    .map_err(Error::from)
                    .unwrap_err()
                    .kind(),
                ErrorKind::Closed
            );
        }
    }
    // The messages that follow it are unknown.
    let mut client = four_under_way();
    client.feed("250 Ok\r\n550 No\r\n").unwrap();
    assert!(
        client
            .machine
            .abort(AbortReason::TimedOut("no more comes".into()))
            .outcome_unknown()
    );
    assert_eq!(client.machine.unconfirmed_messages(), 3);
    assert!(matches!(
        client.steps().unwrap()[..],
        [
            Step::Event(Event::Rejected {
                phase: Phase::Rcpt,
                ..
            }),
            Step::Closed
        ]
    ));
}

/// The message ended here, and its end has not gone: the server speaks of what it has got.
#[test]
fn a_421_before_the_end_of_data_is_in_phase_body() {
    let mut client = Client::ready(&[]);
    client.go_ahead();
    client.machine.finish().unwrap();
    client.read(b"421 Bye\r\n");
    assert!(matches!(
        client.machine.step(),
        Ok(Step::Event(Event::Rejected {
            phase: Phase::Body,
            ..
        }))
    ));
    assert_eq!(client.machine.step().unwrap(), Step::Closed);
    assert!(!client.machine.transcript().to_string().contains("RSET"));
}

/// A message without a hand-over waits for the outcome of one before it that was withdrawn: those
/// that may be delivered are the first ones without an outcome.
#[test]
fn what_follows_a_withdrawn_message_waits_for_its_outcome() {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    let mut first = transaction();
    (first.size, first.hand_over) = (Some(3), true);
    client.machine.begin(first).unwrap();
    client.steps().unwrap();
    client.machine.body("x\r\n").unwrap();
    client.machine.finish().unwrap();
    client.machine.withdraw().unwrap();
    client.give_a_chunk();
    client.steps().unwrap();
    assert!(!client.wire.contains("BDAT"), "{}", client.wire);
    let steps = client.feed("250 Ok\r\n250 Ok\r\n").unwrap();
    assert!(steps.contains(&Step::Event(Event::Withdrawn)), "{steps:?}");
    assert!(client.wire.ends_with("BDAT 3 LAST\r\nx\r\n"));
    let error = client.end();
    assert!(error.outcome_unknown());
    assert_eq!(client.machine.unconfirmed_messages(), 1);
}
