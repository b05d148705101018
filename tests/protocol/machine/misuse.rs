//! What may be asked for, and when.

use envoi::proto::{Content, Event, RawCommand, Step, Transaction};
use envoi::{Error, ErrorKind, Phase};

use support::address;

use super::{Client, transaction};

#[test]
fn a_call_in_the_wrong_state_is_refused_and_changes_nothing() {
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.noop().unwrap();
    let error = client.machine.noop().map_err(Error::from).unwrap_err();
    assert!(
        error
            .message()
            .contains("the answer to what was sent before is not there"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Request);
    for error in [
        client.machine.upgraded(),
        client.machine.body("x"),
        client.machine.finish(),
        client.machine.data(),
    ] {
        let error = Error::from(error.unwrap_err());
        assert!(
            error.message().contains("out of turn") || error.message().contains("no transaction"),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Request);
    }
    let steps = client.feed("250 2.0.0 Ok\r\n").unwrap();
    assert!(
        matches!(&steps[..], [Step::Event(Event::Reply { .. }), Step::Ready]),
        "{steps:?}"
    );
    let error = client
        .machine
        .begin(Transaction::open(None))
        .map_err(Error::from)
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::Request, "the message has no recipient")
    );
    assert_eq!(client.steps().unwrap(), [Step::Ready]);
    // Single steps, with no accepted recipient.
    client.machine.mail(None.into()).unwrap();
    client.feed("250 2.1.0 Ok\r\n").unwrap();
    let error = client.machine.data().map_err(Error::from).unwrap_err();
    assert!(
        error.message().contains("no recipient was accepted"),
        "{error}"
    );
    let error = client
        .machine
        .rcpt(address("j\u{f6}rg@example.com"))
        .map_err(Error::from)
        .unwrap_err();
    assert!(error.message().contains("without SMTPUTF8"), "{error}");
    client.machine.rcpt(address("you@example.com")).unwrap();
    let steps = client.feed("250 2.1.5 Ok\r\n").unwrap();
    assert!(
        matches!(steps[0], Step::Event(Event::Recipient { index: 0, .. })),
        "{steps:?}"
    );
}

/// What came of the last message was not looked at; a command now would get it for an answer.
#[test]
fn a_command_with_pending_events_is_refused() {
    let mut client = Client::ready(&[]);
    client.machine.begin(transaction()).unwrap();
    client.steps().unwrap();
    client.read(b"550 5.7.1 No\r\n");
    assert!(matches!(
        client.machine.step().unwrap(),
        Step::Event(Event::Sender { .. })
    ));
    let error = client.machine.noop().map_err(Error::from).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Request && error.message().contains("was not looked at"),
        "{error}"
    );
    assert!(matches!(
        client.machine.step().unwrap(),
        Step::Event(Event::Rejected {
            phase: Phase::Mail,
            ..
        })
    ));
    client.machine.noop().unwrap();
}

/// Nothing was asked, and something came: the next command would get it for an answer.
#[test]
fn unread_input_is_a_violation_at_the_next_command() {
    for (unasked, shown) in [("250 O", "250 O"), ("250-Ok\r\n", "250 Ok")] {
        let mut client = Client::ready(&[]);
        client.read(unasked.as_bytes());
        assert_eq!(
            client.steps().unwrap(),
            [Step::Ready],
            "it may be an orderly goodbye, and is not whole"
        );
        let error = client.machine.noop().map_err(Error::from).unwrap_err();
        assert_eq!(
            error.message(),
            format!("the server sent {shown:?}, and nothing was asked")
        );
        assert_eq!(
            (error.kind(), client.machine.step().unwrap()),
            (ErrorKind::Protocol, Step::Closed)
        );
    }
}

#[test]
fn a_message_that_needs_a_missing_extension_is_refused() {
    let mut client = Client::ready(&[]);
    let mut with_headers = transaction();
    with_headers.utf8_headers = true;
    let mut to_joerg = transaction();
    to_joerg.recipients = vec![address("j\u{f6}rg@example.com")];
    let refused = |client: &mut Client, transaction| {
        client
            .machine
            .begin(transaction)
            .map_err(Error::from)
            .unwrap_err()
    };
    let error = refused(&mut client, with_headers);
    assert!(
        error.message().contains("headers that are not ASCII"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("RFC 2047"), "{error}");
    let error = refused(&mut client, to_joerg);
    assert!(error.message().contains("j\u{f6}rg@example.com"), "{error}");
    assert_eq!(client.steps().unwrap(), [Step::Ready]);
    assert_eq!(client.wire, "EHLO me\r\n", "nothing was sent");

    // The limit itself can be had. What is binary needs both.
    let begin = |offers: &[&str], size, content| {
        let mut transaction = transaction();
        (transaction.size, transaction.content) = (Some(size), content);
        Client::ready(offers)
            .machine
            .begin(transaction)
            .map_err(|error| Error::from(error).kind())
    };
    assert_eq!(begin(&["SIZE 1000"], 1000, Content::Unknown), Ok(()));
    assert_eq!(
        begin(&["SIZE 1000"], 1001, Content::Unknown),
        Err(ErrorKind::Unsupported)
    );
    assert_eq!(
        begin(&["BINARYMIME", "CHUNKING"], 1, Content::Binary),
        Ok(())
    );
    assert_eq!(
        begin(&["BINARYMIME"], 1, Content::Binary),
        Err(ErrorKind::Unsupported)
    );
    assert_eq!(
        begin(&["CHUNKING"], 1, Content::Binary),
        Err(ErrorKind::Unsupported)
    );

    let vrfy = RawCommand::new("VRFY j\u{f6}rg").unwrap();
    assert_eq!(
        Client::ready(&[])
            .machine
            .command(&vrfy)
            .map_err(Error::from)
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
    Client::ready(&["SMTPUTF8"]).machine.command(&vrfy).unwrap();
}

#[test]
fn the_next_message_may_start_only_with_pipelining() {
    // Without PIPELINING, one after the other.
    let mut client = Client::ready(&[]);
    assert!(client.machine.may_begin());
    client.go_ahead();
    assert!(!client.machine.may_begin());
    client.machine.finish().unwrap();
    client.steps().unwrap();
    assert!(!client.machine.may_begin());
    client.feed("250 queued\r\n").unwrap();
    assert!(client.machine.may_begin());

    // With it, behind messages that were given whole.
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.begin(transaction()).unwrap();
    assert!(!client.machine.may_begin());
    client.feed("250 Ok\r\n250 Ok\r\n354 Go\r\n").unwrap();
    client.machine.finish().unwrap();
    assert!(client.machine.may_begin());
    let error = client
        .machine
        .mail(address("me@example.org").into())
        .map_err(Error::from)
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Request,
        "step by step, every answer is awaited"
    );
    client.machine.begin(transaction()).unwrap();
    client.steps().unwrap();
    let one = "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n";
    assert_eq!(client.wire, format!("EHLO me\r\n{one}.\r\n{one}"));
    client
        .feed("250 queued\r\n250 Ok\r\n250 Ok\r\n354 Go\r\n")
        .unwrap();
    client.machine.finish().unwrap();
    client.feed("250 queued\r\n").unwrap();

    // And not behind a command of another kind.
    client.machine.noop().unwrap();
    assert!(!client.machine.may_begin());
    assert_eq!(
        client
            .machine
            .begin(transaction())
            .map_err(Error::from)
            .unwrap_err()
            .kind(),
        ErrorKind::Request
    );
}

#[test]
fn remaining_transactions_are_counted_under_mailmax() {
    let mut client = Client::ready(&["PIPELINING"]);
    assert_eq!(client.machine.transactions_left(), None);
    client = Client::ready(&["PIPELINING", "LIMITS MAILMAX=3"]);
    for left in [3, 2, 1, 0] {
        assert_eq!(client.machine.transactions_left(), Some(left));
        let result = client.machine.begin(transaction());
        assert_eq!(
            result.map_err(|error| Error::from(error).kind()),
            if left > 0 {
                Ok(())
            } else {
                Err(ErrorKind::Closed)
            }
        );
        client
            .feed("550 No\r\n503 No\r\n503 No\r\n")
            .unwrap_or_default();
    }
}

/// Single steps report the answer to each recipient; those that go along with MAIL would have none.
#[test]
fn a_transaction_of_single_steps_refuses_recipients() {
    let mut client = Client::ready(&["PIPELINING"]);
    let error = client
        .machine
        .mail(transaction())
        .map_err(Error::from)
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Request, Phase::Mail)
    );
    assert!(error.hint().unwrap().contains("rcpt"), "{error}");
    assert_eq!(client.steps().unwrap(), [Step::Ready]);
    assert!(!client.wire.contains("MAIL"));
}

#[test]
fn recipient_domains_are_counted_under_rcptdomainmax() {
    let mut client = Client::ready(&["LIMITS RCPTDOMAINMAX=2"]);
    client.machine.mail(None.into()).unwrap();
    client.feed("250 Ok\r\n").unwrap();
    for (to, is_within) in [
        ("a@x.org", true),
        ("b@y.org", true),
        ("c@z.org", false),
        ("d@X.org", true),
        ("e@z.org", false),
    ] {
        let result = client.machine.rcpt(address(to));
        assert_eq!(
            result.clone().err().map(|error| Error::from(error).kind()),
            (!is_within).then_some(ErrorKind::Unsupported),
            "{to}"
        );
        if result.is_ok() {
            client.feed("550 No\r\n").unwrap();
        }
    }
}
