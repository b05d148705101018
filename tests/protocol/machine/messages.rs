//! How messages go, and how far they are.

use envoi::proto::{Content, Event, Step};
use envoi::{Error, ErrorKind, Phase};

use support::address;

use super::{Client, transaction};

#[test]
fn the_state_of_a_message_is_reported() {
    let mut client = Client::ready(&[]);
    assert_eq!(
        client.machine.greeting().unwrap().text(),
        "mail.example.org hello"
    );
    assert!(client.machine.capabilities().offers("HELP") && !client.machine.is_secure());
    assert_eq!(
        (client.machine.round_trips(), client.machine.replies()),
        (2, 2)
    );
    client.go_ahead();
    client.machine.body("Subject: x\n\n.dot\n").unwrap();
    assert_eq!(
        client.machine.message_bytes(),
        20,
        "with its line ends, without the dot that was added"
    );
    assert!(client.machine.message_bytes_gone() < 20);
    client.steps().unwrap();
    assert_eq!(client.machine.message_bytes_gone(), 20);
    client.machine.finish().unwrap();
    assert!(!client.machine.outcome_unknown());
    client.steps().unwrap();
    assert!(client.machine.outcome_unknown());
    let steps = client.feed("250 queued\r\n").unwrap();
    assert!(
        matches!(
            &steps[..],
            [Step::Event(Event::Accepted { .. }), Step::Ready]
        ),
        "{steps:?}"
    );
    assert!(!client.machine.outcome_unknown());

    // Of chunks, what is not full yet has not gone.
    let mut client = Client::ready_with(&["CHUNKING", "BINARYMIME"], |settings| {
        settings.chunk_size = 10
    });
    let mut binary = transaction();
    binary.content = Content::Binary;
    client.machine.begin(binary).unwrap();
    for _ in 0..2 {
        client.feed("250 Ok\r\n").unwrap();
    }
    client.machine.body("123456789").unwrap();
    client.steps().unwrap();
    assert_eq!(
        (
            client.machine.message_bytes(),
            client.machine.message_bytes_gone()
        ),
        (9, 0)
    );
}

/// A write of nothing is none: the reply behind it was not waited for.
#[test]
fn round_trips_count_only_writes_with_bytes() {
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.begin(transaction()).unwrap();
    client.feed("250 Ok\r\n").unwrap();
    assert_eq!(client.machine.round_trips(), 3);
    client.machine.wrote(0);
    client.feed("250 Ok\r\n").unwrap();
    assert_eq!(
        (client.machine.round_trips(), client.machine.replies()),
        (3, 4)
    );
}

#[test]
fn unread_input_is_bounded() {
    let mut client = Client::new(|_| {});
    let most = 16 * 1024 + 64 * 1024;
    let bytes = b"220-hello\r\n".repeat(10_000);
    let mut taken = client.machine.input(&bytes);
    assert_eq!(taken, most);
    assert_eq!(client.machine.input(&bytes[taken..]), 0);
    client.steps().unwrap_err();

    client = Client::new(|settings| settings.limits.reply_lines = 10_000);
    taken = client.machine.input(&bytes);
    client.steps().unwrap();
    assert_eq!(
        client.machine.input(&bytes[taken..]),
        bytes.len() - taken,
        "there is room again"
    );
}

#[test]
fn body_requests_are_bounded() {
    let mut client = Client::ready(&[]);
    client.go_ahead();
    let most = 256 * 1024;
    assert_eq!(client.machine.step().unwrap(), Step::Body { room: most });
    client.machine.body(vec![b'x'; most - 1]).unwrap();
    assert_eq!(client.machine.step().unwrap(), Step::Body { room: 1 });
    client.machine.body("x").unwrap();
    assert_eq!(
        client.machine.step().unwrap(),
        Step::Wait { phase: Phase::Body }
    );
    client.machine.wrote(2);
    assert_eq!(client.machine.step().unwrap(), Step::Body { room: 2 });
}

/// A small message goes with its commands (RFC 3030). Larger ones gain nothing by it, and an empty
/// one would be whole before its end is known.
#[test]
fn small_messages_are_sent_as_one_chunk() {
    for (size, is_chunk) in [
        (0, false),
        (1, true),
        (64 * 1024, true),
        (64 * 1024 + 1, false),
    ] {
        let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
        let mut transaction = transaction();
        transaction.size = Some(size);
        client.machine.begin(transaction).unwrap();
        client.steps().unwrap();
        let last = if is_chunk {
            format!("BDAT {size} LAST\r\n")
        } else {
            "DATA\r\n".into()
        };
        assert!(client.wire.ends_with(&last), "{size}: {}", client.wire);
    }
}

/// With its last byte a chunk is a message to the server; what is not as announced must not be one.
#[test]
fn a_chunk_of_another_size_than_announced_is_an_error() {
    let chunk = |pieces: &[&'static str]| {
        let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
        let mut transaction = transaction();
        transaction.size = Some(3);
        client.machine.begin(transaction).unwrap();
        client.steps().unwrap();
        // What may go does so at once: the last byte must not be among it before it is known that
        // none follows.
        let result = pieces
            .iter()
            .try_for_each(|piece| client.machine.body(*piece).map(|()| drop(client.steps())));
        let result = result.and_then(|()| client.machine.finish());
        client.steps().unwrap();
        (
            result.map_err(|error| (Error::from(error.clone()).kind(), error.phase())),
            client,
        )
    };
    for pieces in [&["x\r\n"][..], &["x", "\r\n"], &["x", "", "\r", "\n", ""]] {
        let (result, client) = chunk(pieces);
        assert_eq!(result, Ok(()), "{pieces:?}");
        assert!(
            client.wire.ends_with("BDAT 3 LAST\r\nx\r\n"),
            "{}",
            client.wire
        );
    }
    for pieces in [&["x\r\n", "y"][..], &["\r\n"], &["xy\r\n"], &[]] {
        let (result, mut client) = chunk(pieces);
        assert_eq!(result, Err((ErrorKind::Input, Phase::Body)), "{pieces:?}");
        assert!(client.wire.ends_with("BDAT 3 LAST\r\n"), "{}", client.wire);
        assert_eq!(client.steps().unwrap(), [Step::Closed]);
    }
}

/// The transcript tells how much of a message went that was refused in its middle.
#[test]
fn a_refused_chunk_is_noted_unless_it_was_the_last() {
    for (text, ends, last) in [
        (
            "123456789012345",
            false,
            "-- 10 bytes of the message, and not its end",
        ),
        ("123456789012345", true, "S: 552 5.3.4 Too big"),
    ] {
        let mut client =
            Client::ready_with(&["CHUNKING", "BINARYMIME", "PIPELINING"], |settings| {
                settings.chunk_size = 10;
            });
        let mut binary = transaction();
        binary.content = Content::Binary;
        client.machine.begin(binary).unwrap();
        client.feed("250 Ok\r\n250 Ok\r\n").unwrap();
        client.machine.body(text).unwrap();
        if ends {
            client.machine.finish().unwrap();
        }
        let steps = client.feed("552 5.3.4 Too big\r\n").unwrap();
        assert!(
            matches!(
                steps[0],
                Step::Event(Event::Rejected {
                    phase: Phase::Body,
                    ..
                })
            ),
            "{steps:?}"
        );
        let lines: Vec<_> = client.machine.transcript().lines().collect();
        assert_eq!(
            [&*lines[lines.len() - 2], &*lines[lines.len() - 1]],
            [last, "C: RSET"]
        );
    }
}

/// Behind a chunk that may be refused, RSET comes before the next MAIL (RFC 3030, 2).
#[test]
fn rset_separates_chunks_that_may_be_refused() {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    for _ in 0..2 {
        assert!(client.machine.may_begin());
        client.give_a_chunk();
        client.steps().unwrap();
    }
    let one = "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nBDAT 3 LAST\r\nx\r\n";
    assert_eq!(client.wire, format!("EHLO me\r\n{one}RSET\r\n{one}"));
    let steps = client.feed(&["250 Ok\r\n"; 7].concat()).unwrap();
    assert_eq!(
        steps
            .iter()
            .filter(|step| matches!(step, Step::Event(Event::Accepted { .. })))
            .count(),
        2,
        "{steps:?}"
    );
    // And where the second one is cleaned up after, a server that goes down there takes no message
    // with it.
    client.give_a_chunk();
    let steps = client
        .feed("250 Ok\r\n550 No\r\n503 No recipients\r\n421 Bye\r\n")
        .unwrap();
    assert!(
        matches!(
            steps[..],
            [
                ..,
                Step::Event(Event::Rejected {
                    phase: Phase::Rcpt,
                    ..
                }),
                Step::Closed
            ]
        ),
        "{steps:?}"
    );
}

/// All of them are held until the message is over, and the answer to the message for each
/// recipient.
#[test]
fn long_replies_to_recipients_are_shortened() {
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.begin(transaction()).unwrap();
    let long = |code: u16| {
        format!("{code}-2.1.5 {}\r\n", "x".repeat(16_000)).repeat(15) + &format!("{code} end\r\n")
    };
    client.steps().unwrap();
    for (code, next) in [(250, "MAIL"), (250, "RCPT"), (354, "DATA")] {
        for line in long(code).split_inclusive('\n') {
            for step in client.feed(line).unwrap() {
                if let Step::Event(Event::Sender { reply })
                | Step::Event(Event::Recipient { reply, .. }) = step
                {
                    assert!(
                        reply.text().len() < 4096 && reply.text().ends_with('…'),
                        "{next}"
                    );
                    assert_eq!(reply.enhanced().unwrap().to_string(), "2.1.5");
                }
            }
        }
    }
    client.machine.finish().unwrap();
    let mut last = Vec::new();
    long(250)
        .split_inclusive('\n')
        .for_each(|line| last = client.feed(line).unwrap());
    assert!(
        matches!(&last[0], Step::Event(Event::Accepted { reply }) if reply.text().len() < 4096),
        "{last:?}"
    );
}

/// The replies to all recipients are held together: the first ones as they are, and a share of
/// each.
#[test]
fn stored_replies_are_bounded_over_all_recipients() {
    const RECIPIENTS: usize = 2000;
    let mut client = Client::ready(&[]);
    let mut transaction = transaction();
    transaction.recipients = (0..RECIPIENTS)
        .map(|n| address(&format!("user{n}@example.com")))
        .collect();
    client.machine.begin(transaction).unwrap();
    client.feed("250 Ok\r\n").unwrap();
    let long = format!("550 5.1.1 {}\r\n", "x".repeat(4000));
    let mut kept = Vec::new();
    for _ in 0..RECIPIENTS {
        let steps = client.feed(&long).unwrap();
        kept.extend(steps.iter().filter_map(|step| match step {
            Step::Event(Event::Recipient { reply, .. }) => Some(reply.text().len()),
            _ => None,
        }));
    }
    assert_eq!((kept.len(), kept[0]), (RECIPIENTS, 4000));
    assert!(kept.iter().all(|kept| (200..=4000).contains(kept)));
    assert!(kept.iter().sum::<usize>() <= 1024 * 1024 + 256 * RECIPIENTS);
}
