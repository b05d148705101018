//! What a caller may ask of the machine, and what it is told: the calls one by one, where `tests/dialogues` has conversations.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use envoi::proto::{
    BadReply, Chunk, ClientName, Content, Limits, Machine, Mechanism, Output, Protocol, RawCommand, ReplyParser,
    SaslExchange, SaslFailure, SaslSession, Settings, StartTls, Step, Stuffer, Transaction,
};
use envoi::{Address, Credentials, Envelope, Error, Kind, Phase};

/// A machine and what it said.
struct Client {
    machine: Machine,
    wire: String,
}

impl Client {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(ClientName::new("me").unwrap());
        change(&mut settings);
        Client { machine: Machine::new(settings), wire: String::new() }
    }

    /// Greeted, and offered these.
    fn ready(offers: &[&str]) -> Self {
        Client::ready_with(offers, |_| {})
    }

    fn ready_with(offers: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let mut client = Client::new(change);
        client.hear("220 mail.example.org hello\r\n").unwrap();
        let lines: String = offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
        client.hear(&format!("250-mail.example.org\r\n{lines}250 HELP\r\n")).unwrap();
        assert_eq!(client.steps().unwrap(), [Step::Ready]);
        client
    }

    /// All steps up to one that wants something, which is the last.
    fn steps(&mut self) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::new();
        loop {
            let step = self.machine.step()?;
            while !self.machine.output().is_empty() {
                let front = self.machine.output().front();
                self.wire.push_str(&String::from_utf8_lossy(front));
                self.machine.wrote(front.len());
            }
            let waits =
                matches!(step, Step::Wait { .. } | Step::Upgrade | Step::Ready | Step::Body { .. } | Step::Closed);
            steps.push(step);
            if waits {
                return Ok(steps);
            }
        }
    }

    /// A message as far as 354.
    fn go_ahead(&mut self) {
        self.machine.begin(transaction()).unwrap();
        for reply in ["250 Ok\r\n", "250 Ok\r\n", "354 Go\r\n"] {
            self.hear(reply).unwrap();
        }
    }

    /// A message of three bytes, which goes with its commands.
    fn give_a_chunk(&mut self) {
        let mut transaction = transaction();
        transaction.size = Some(3);
        self.machine.begin(transaction).unwrap();
        self.steps().unwrap();
        self.machine.body("x\r\n").unwrap();
        self.machine.finish().unwrap();
    }

    fn hear(&mut self, bytes: &str) -> Result<Vec<Step>, Error> {
        self.steps()?;
        self.read(bytes.as_bytes());
        self.steps()
    }

    /// Bytes come, and nobody asks yet what they mean.
    fn read(&mut self, bytes: &[u8]) {
        assert_eq!(self.machine.input(bytes), bytes.len());
    }

    /// The server says no more: the error, which is the end.
    fn end(&mut self) -> Error {
        self.steps().unwrap();
        self.machine.input_ended();
        let error = self.steps().unwrap_err();
        assert_eq!(self.machine.step().unwrap(), Step::Closed);
        error
    }
}

fn address(text: &str) -> Address {
    Address::new(text).unwrap()
}

fn transaction() -> Transaction {
    Transaction::new(&Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap())
}

#[test]
fn a_failure_names_what_was_awaited() {
    let lost = |client: &mut Client| client.end().message().to_owned();
    assert_eq!(lost(&mut Client::new(|_| {})), "the connection ended before the greeting (220) came");
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.hear("220 hello\r\n").unwrap();
    client.hear("250-mail.example.org\r\n250 STARTTLS\r\n").unwrap();
    assert_eq!(lost(&mut client), "the connection ended before the go-ahead for TLS (220) came");
    let mut client = Client::new(|_| {});
    client.hear("220 hello\r\n").unwrap();
    client.hear("500 what?\r\n").unwrap();
    assert_eq!(lost(&mut client), "the connection ended before the answer to HELO (250) came");
    for (cut, shown) in [("220 hel", "220 hel"), ("220-hello\r\n", "220 hello")] {
        let mut client = Client::new(|_| {});
        client.hear(cut).unwrap();
        assert_eq!(lost(&mut client), format!("the connection ended in the middle of a reply: {shown:?}"));
    }

    type Call = fn(&mut Machine) -> Result<(), Error>;
    let calls: [(Call, &str, Phase); 6] = [
        (|machine| machine.noop(), "the answer to NOOP (250)", Phase::Noop),
        (|machine| machine.reset(), "the answer to RSET (250)", Phase::Reset),
        (|machine| machine.command(&RawCommand::new("VRFY you")?), "the answer to the command", Phase::Command),
        (|machine| machine.mail(address("a@example.org").into()), "the answer to MAIL (250)", Phase::Mail),
        (|machine| machine.mail(None.into()), "the answer to MAIL (250)", Phase::Mail),
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
        assert_eq!(error.message(), format!("the connection ended before {awaited} came"));
        assert_eq!((error.kind(), error.phase()), (Kind::Closed, phase));
    }
    let error = Client::ready(&[]).end();
    assert_eq!((error.message(), error.phase()), ("the server closed the connection", Phase::Command));
    let mut client = Client::ready(&[]);
    client.go_ahead();
    client.machine.body("Subject: x\r\n").unwrap();
    let error = client.end();
    assert_eq!((error.message(), error.phase()), ("the connection ended in the middle of the message", Phase::Body));
    let said = |client: &Client| client.machine.transcript().lines().last().unwrap().to_string();
    assert_eq!(said(&client), "-- 12 bytes of the message, and not its end");
    let mut client = Client::ready(&[]);
    client.go_ahead();
    client.machine.finish().unwrap();
    assert_eq!(lost(&mut client), "the connection ended before the server confirmed the message");
    assert_eq!(said(&client), "C: .");
}

/// The driver's own reason has the phase, too.
#[test]
fn a_session_that_is_given_up_was_in_a_phase() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.hear("220 hello\r\n").unwrap();
    client.hear("250-mail.example.org\r\n250 STARTTLS\r\n").unwrap();
    assert_eq!(client.hear("220 Go ahead\r\n").unwrap(), [Step::Upgrade]);
    assert_eq!(client.machine.abort(Kind::Timeout, "no handshake").phase(), Phase::Tls);
    assert_eq!(client.steps().unwrap(), [Step::Closed]);
}

#[test]
fn after_quit_the_end_is_the_end() {
    for last_words in ["", "221 bye\r\n", "421 4.3.2 bye\r\n", "500 what?\r\n"] {
        let mut client = Client::ready(&[]);
        client.machine.quit().unwrap();
        client.steps().unwrap();
        client.read(last_words.as_bytes());
        client.machine.input_ended();
        assert_eq!(client.steps().unwrap(), [Step::Closed], "{last_words:?}");
        assert!(client.wire.ends_with("QUIT\r\n"));
        let error = client.machine.noop().unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Closed, "the session is over"));
    }
}

#[test]
fn what_is_out_of_turn_is_refused_and_changes_nothing() {
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.noop().unwrap();
    let error = client.machine.noop().unwrap_err();
    assert!(error.message().contains("the answer to what was sent before is not there"), "{error}");
    assert_eq!(error.kind(), Kind::Request);
    for error in [client.machine.upgraded(), client.machine.body("x"), client.machine.finish(), client.machine.data()] {
        let error = error.unwrap_err();
        assert!(error.message().contains("out of turn") || error.message().contains("no transaction"), "{error}");
        assert_eq!(error.kind(), Kind::Request);
    }
    let steps = client.hear("250 2.0.0 Ok\r\n").unwrap();
    assert!(matches!(&steps[..], [Step::Reply { .. }, Step::Ready]), "{steps:?}");
    let error = client.machine.begin(Transaction::open(None)).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Request, "the message has no recipient"));
    assert_eq!(client.steps().unwrap(), [Step::Ready]);
    // Step by step, and nobody was accepted.
    client.machine.mail(None.into()).unwrap();
    client.hear("250 2.1.0 Ok\r\n").unwrap();
    let error = client.machine.data().unwrap_err();
    assert!(error.message().contains("no recipient was accepted"), "{error}");
    let error = client.machine.rcpt(address("j\u{f6}rg@example.com")).unwrap_err();
    assert!(error.message().contains("without SMTPUTF8"), "{error}");
    client.machine.rcpt(address("you@example.com")).unwrap();
    let steps = client.hear("250 2.1.5 Ok\r\n").unwrap();
    assert!(matches!(steps[0], Step::Recipient { index: 0, .. }), "{steps:?}");
}

/// What came of the last message was not looked at; a command now would get it for an answer.
#[test]
fn events_are_looked_at_before_the_next_command() {
    let mut client = Client::ready(&[]);
    client.machine.begin(transaction()).unwrap();
    client.steps().unwrap();
    client.read(b"550 5.7.1 No\r\n");
    assert!(matches!(client.machine.step().unwrap(), Step::Sender { .. }));
    let error = client.machine.noop().unwrap_err();
    assert!(error.kind() == Kind::Request && error.message().contains("was not looked at"), "{error}");
    assert!(matches!(client.machine.step().unwrap(), Step::NotSent { phase: Phase::Mail, .. }));
    client.machine.noop().unwrap();
}

/// Nothing was asked, and something came: the next command would get it for an answer.
#[test]
fn what_came_unasked_is_no_answer_to_the_next_command() {
    for (unasked, shown) in [("250 O", "250 O"), ("250-Ok\r\n", "250 Ok")] {
        let mut client = Client::ready(&[]);
        client.read(unasked.as_bytes());
        assert_eq!(client.steps().unwrap(), [Step::Ready], "it may be an orderly goodbye, and is not whole");
        let error = client.machine.noop().unwrap_err();
        assert_eq!(error.message(), format!("the server sent {shown:?}, and nothing was asked"));
        assert_eq!((error.kind(), client.machine.step().unwrap()), (Kind::Protocol, Step::Closed));
    }
}

#[test]
fn the_next_message_may_begin_where_it_is_told_apart() {
    // Without PIPELINING, one after the other.
    let mut client = Client::ready(&[]);
    assert!(client.machine.may_begin());
    client.go_ahead();
    assert!(!client.machine.may_begin());
    client.machine.finish().unwrap();
    client.steps().unwrap();
    assert!(!client.machine.may_begin());
    client.hear("250 queued\r\n").unwrap();
    assert!(client.machine.may_begin());

    // With it, behind messages that were given whole.
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.begin(transaction()).unwrap();
    assert!(!client.machine.may_begin());
    client.hear("250 Ok\r\n250 Ok\r\n354 Go\r\n").unwrap();
    client.machine.finish().unwrap();
    assert!(client.machine.may_begin());
    let error = client.machine.mail(address("me@example.org").into()).unwrap_err();
    assert_eq!(error.kind(), Kind::Request, "step by step, every answer is awaited");
    client.machine.begin(transaction()).unwrap();
    client.steps().unwrap();
    let one = "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n";
    assert_eq!(client.wire, format!("EHLO me\r\n{one}.\r\n{one}"));
    client.hear("250 queued\r\n250 Ok\r\n250 Ok\r\n354 Go\r\n").unwrap();
    client.machine.finish().unwrap();
    client.hear("250 queued\r\n").unwrap();

    // And not behind a command of another kind.
    client.machine.noop().unwrap();
    assert!(!client.machine.may_begin());
    assert_eq!(client.machine.begin(transaction()).unwrap_err().kind(), Kind::Request);
}

#[test]
fn messages_are_counted_where_the_server_limits_them() {
    let mut client = Client::ready(&["PIPELINING"]);
    assert_eq!(client.machine.transactions_left(), None);
    client = Client::ready(&["PIPELINING", "LIMITS MAILMAX=3"]);
    for left in [3, 2, 1, 0] {
        assert_eq!(client.machine.transactions_left(), Some(left));
        let result = client.machine.begin(transaction());
        assert_eq!(result.map_err(|error| error.kind()), if left > 0 { Ok(()) } else { Err(Kind::Closed) });
        client.hear("550 No\r\n503 No\r\n503 No\r\n").unwrap_or_default();
    }
}

/// With its last byte a chunk is a message to the server; what is not as announced must not be one.
#[test]
fn a_chunk_is_as_large_as_announced() {
    let chunk = |pieces: &[&'static str]| {
        let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
        let mut transaction = transaction();
        transaction.size = Some(3);
        client.machine.begin(transaction).unwrap();
        client.steps().unwrap();
        let result = pieces.iter().try_for_each(|piece| client.machine.body(*piece));
        let result = result.and_then(|()| client.machine.finish());
        client.steps().unwrap();
        (result.map_err(|error| (error.kind(), error.phase())), client)
    };
    for pieces in [&["x\r\n"][..], &["x", "\r\n"], &["x", "", "\r", "\n", ""]] {
        let (result, client) = chunk(pieces);
        assert_eq!(result, Ok(()), "{pieces:?}");
        assert!(client.wire.ends_with("BDAT 3 LAST\r\nx\r\n"), "{}", client.wire);
    }
    for pieces in [&["x\r\n", "y"][..], &["\r\n"], &["xy\r\n"], &[]] {
        let (result, mut client) = chunk(pieces);
        assert_eq!(result, Err((Kind::Input, Phase::Body)), "{pieces:?}");
        assert!(client.wire.ends_with("BDAT 3 LAST\r\n"), "{}", client.wire);
        assert_eq!(client.steps().unwrap(), [Step::Closed]);
    }
}

#[test]
fn a_message_needs_what_the_server_offers() {
    let mut client = Client::ready(&[]);
    let mut with_headers = transaction();
    with_headers.utf8_headers = true;
    let mut to_joerg = transaction();
    to_joerg.recipients = vec![address("j\u{f6}rg@example.com")];
    let refused = |client: &mut Client, transaction| client.machine.begin(transaction).unwrap_err();
    let error = refused(&mut client, with_headers);
    assert!(error.message().contains("headers that are not ASCII"), "{error}");
    assert!(error.hint().unwrap().contains("RFC 2047"), "{error}");
    let error = refused(&mut client, to_joerg);
    assert!(error.message().contains("j\u{f6}rg@example.com"), "{error}");
    assert_eq!(client.steps().unwrap(), [Step::Ready]);
    assert_eq!(client.wire, "EHLO me\r\n", "nothing was sent");

    // The limit itself can be had. What is binary needs both.
    let begin = |offers: &[&str], size, content| {
        let mut transaction = transaction();
        (transaction.size, transaction.content) = (Some(size), content);
        Client::ready(offers).machine.begin(transaction).map_err(|error| error.kind())
    };
    assert_eq!(begin(&["SIZE 1000"], 1000, Content::Unknown), Ok(()));
    assert_eq!(begin(&["SIZE 1000"], 1001, Content::Unknown), Err(Kind::Unsupported));
    assert_eq!(begin(&["BINARYMIME", "CHUNKING"], 1, Content::Binary), Ok(()));
    assert_eq!(begin(&["BINARYMIME"], 1, Content::Binary), Err(Kind::Unsupported));
    assert_eq!(begin(&["CHUNKING"], 1, Content::Binary), Err(Kind::Unsupported));

    let vrfy = RawCommand::new("VRFY j\u{f6}rg").unwrap();
    assert_eq!(Client::ready(&[]).machine.command(&vrfy).unwrap_err().kind(), Kind::Unsupported);
    Client::ready(&["SMTPUTF8"]).machine.command(&vrfy).unwrap();
}

#[test]
fn bytes_behind_the_go_ahead_for_tls_are_named() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::IfOffered);
    client.hear("220 hello\r\n").unwrap();
    client.hear("250-mail.example.org\r\n250 STARTTLS\r\n").unwrap();
    assert_eq!(client.hear("220 Go ahead\r\n").unwrap(), [Step::Upgrade]);
    // The driver had read them, and did not ask for a step before it made the handshake.
    client.read(b"250 AUTH PLAIN\r\n");
    let error = client.machine.upgraded().unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(!client.machine.is_secure());
    assert_eq!(client.steps().unwrap(), [Step::Closed]);
}

/// A go-ahead that came before STARTTLS went does not overtake it.
#[test]
fn the_handshake_comes_after_starttls() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.hear("220 hello\r\n").unwrap();
    client.read(b"250-mail.example.org\r\n250 STARTTLS\r\n220 Go ahead\r\n");
    assert!(matches!(client.machine.step().unwrap(), Step::Wait { .. }));
    assert!(client.machine.upgraded().unwrap_err().message().contains("STARTTLS has not gone"));
    assert_eq!(client.steps().unwrap(), [Step::Wait { phase: Phase::Tls }]);
    assert!(client.wire.ends_with("STARTTLS\r\n"));
    assert_eq!(client.steps().unwrap(), [Step::Upgrade]);
    client.machine.upgraded().unwrap();
    assert!(client.machine.is_secure());
}

#[test]
fn a_server_that_begins_with_tls_is_recognised() {
    let mut client = Client::new(|_| {});
    client.steps().unwrap();
    // A handshake failure alert, as TLS servers answer what is no TLS.
    client.read(&[0x15]);
    assert!(client.steps().is_ok(), "one byte is not enough to tell, or what is told would hang on the cut");
    client.read(&[0x03, 0x01, 0x00, 0x02, 0x02, 0x28]);
    let error = client.steps().unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[test]
fn how_far_a_message_is() {
    let mut client = Client::ready(&[]);
    assert_eq!(client.machine.greeting().unwrap().text(), "mail.example.org hello");
    assert!(client.machine.capabilities().offers("HELP") && !client.machine.is_secure());
    assert_eq!((client.machine.round_trips(), client.machine.replies()), (2, 2));
    client.go_ahead();
    client.machine.body("Subject: x\n\n.dot\n").unwrap();
    assert_eq!(client.machine.message_bytes(), 20, "with its line ends, without the dot that was added");
    assert!(client.machine.message_bytes_gone() < 20);
    client.steps().unwrap();
    assert_eq!(client.machine.message_bytes_gone(), 20);
    client.machine.finish().unwrap();
    assert!(!client.machine.outcome_unknown());
    client.steps().unwrap();
    assert!(client.machine.outcome_unknown());
    let steps = client.hear("250 queued\r\n").unwrap();
    assert!(matches!(&steps[..], [Step::Sent { .. }, Step::Ready]), "{steps:?}");
    assert!(!client.machine.outcome_unknown());

    // Of chunks, what is not full yet has not gone.
    let mut client = Client::ready_with(&["CHUNKING", "BINARYMIME"], |settings| settings.chunk_size = 10);
    let mut binary = transaction();
    binary.content = Content::Binary;
    client.machine.begin(binary).unwrap();
    for _ in 0..2 {
        client.hear("250 Ok\r\n").unwrap();
    }
    client.machine.body("123456789").unwrap();
    client.steps().unwrap();
    assert_eq!((client.machine.message_bytes(), client.machine.message_bytes_gone()), (9, 0));
}

/// A write of nothing is none: the reply behind it was not waited for.
#[test]
fn round_trips_are_counted_by_what_went() {
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.begin(transaction()).unwrap();
    client.hear("250 Ok\r\n").unwrap();
    assert_eq!(client.machine.round_trips(), 3);
    client.machine.wrote(0);
    client.hear("250 Ok\r\n").unwrap();
    assert_eq!((client.machine.round_trips(), client.machine.replies()), (3, 4));
}

#[test]
fn what_is_unread_has_a_limit() {
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
    assert_eq!(client.machine.input(&bytes[taken..]), bytes.len() - taken, "there is room again");
}

#[test]
fn no_more_of_a_message_is_wanted_than_is_written_at_once() {
    let mut client = Client::ready(&[]);
    client.go_ahead();
    let most = 256 * 1024;
    assert_eq!(client.machine.step().unwrap(), Step::Body { room: most });
    client.machine.body(vec![b'x'; most - 1]).unwrap();
    assert_eq!(client.machine.step().unwrap(), Step::Body { room: 1 });
    client.machine.body("x").unwrap();
    assert_eq!(client.machine.step().unwrap(), Step::Wait { phase: Phase::Body });
    client.machine.wrote(2);
    assert_eq!(client.machine.step().unwrap(), Step::Body { room: 2 });
}

/// A small message goes with its commands (RFC 3030). Larger ones gain nothing by it, and an empty one would be whole
/// before its end is known.
#[test]
fn small_messages_go_as_a_chunk() {
    for (size, is_chunk) in [(0, false), (1, true), (64 * 1024, true), (64 * 1024 + 1, false)] {
        let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
        let mut transaction = transaction();
        transaction.size = Some(size);
        client.machine.begin(transaction).unwrap();
        client.steps().unwrap();
        let last = if is_chunk { format!("BDAT {size} LAST\r\n") } else { "DATA\r\n".into() };
        assert!(client.wire.ends_with(&last), "{size}: {}", client.wire);
    }
}

/// What was handed over whole and has no answer.
#[test]
fn it_is_known_how_many_outcomes_are_unknown() {
    let two_under_way = || {
        let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
        (0..2).for_each(|_| client.give_a_chunk());
        client.steps().unwrap();
        client
    };
    let mut client = two_under_way();
    assert!(client.end().outcome_unknown());
    assert_eq!(client.machine.left_unknown(), 2);
    let mut client = two_under_way();
    client.hear("250 Ok\r\n250 Ok\r\n250 queued\r\n").unwrap();
    assert!(client.end().outcome_unknown());
    assert_eq!(client.machine.left_unknown(), 1);
    // 421 to a command of the first, and nothing of the second.
    let mut client = two_under_way();
    let steps = client.hear("250 Ok\r\n421 Bye\r\n").unwrap();
    assert!(matches!(steps[..], [.., Step::NotSent { phase: Phase::Rcpt, .. }, Step::Closed]), "{steps:?}");
    assert_eq!(client.machine.left_unknown(), 1);
    // And to the first itself.
    let mut client = two_under_way();
    let steps = client.hear("250 Ok\r\n250 Ok\r\n421 Bye\r\n").unwrap();
    assert!(matches!(steps[..], [.., Step::NotSent { phase: Phase::EndOfData, .. }, Step::Closed]), "{steps:?}");
    assert_eq!(client.machine.left_unknown(), 1);

    let mut client = Client::ready(&[]);
    client.end();
    assert_eq!(client.machine.left_unknown(), 0);
}

/// The message ended here, and its end has not gone: the server speaks of what it has got.
#[test]
fn shutting_down_before_the_end_went_is_in_the_body() {
    let mut client = Client::ready(&[]);
    client.go_ahead();
    client.machine.finish().unwrap();
    client.read(b"421 Bye\r\n");
    assert!(matches!(client.machine.step(), Ok(Step::NotSent { phase: Phase::Body, .. })));
    assert_eq!(client.machine.step().unwrap(), Step::Closed);
    assert!(!client.machine.transcript().to_string().contains("RSET"));
}

/// What LMTP's first command is refused with says whether there is LMTP at all.
#[test]
fn a_server_without_lmtp_is_named() {
    for (reply, kind, says) in [
        ("500 what?\r\n", Kind::Refused, "the server does not know LHLO, with which LMTP begins"),
        ("550 not you\r\n", Kind::Refused, "the server refused LHLO from this client, me"),
        ("354 go\r\n", Kind::Protocol, "expected the answer to LHLO (250), but the server sent 354 go"),
    ] {
        let mut client = Client::new(|settings| settings.protocol = Protocol::Lmtp);
        client.hear("220 hello\r\n").unwrap();
        let error = client.hear(reply).unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, says));
    }
}

/// Its only recipient was refused, and the server closed before it said so of the chunk that had gone, too: nothing is unknown.
#[test]
fn a_refusal_is_certain_also_where_all_has_gone() {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    client.give_a_chunk();
    client.hear("250 Ok\r\n550 No\r\n").unwrap();
    assert!(client.machine.outcome_unknown());
    client.machine.input_ended();
    assert!(matches!(client.machine.step(), Ok(Step::NotSent { phase: Phase::Rcpt, .. })));
    assert!(!client.machine.outcome_unknown());
    let error = client.machine.step().unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (Kind::Closed, false));
}

#[test]
fn a_reply_of_another_kind_is_a_violation() {
    let mut client = Client::new(|settings| settings.starttls = StartTls::Required);
    client.hear("220 hello\r\n").unwrap();
    client.hear("250-mail.example.org\r\n250 STARTTLS\r\n").unwrap();
    assert_eq!(client.hear("250 Ok\r\n").unwrap_err().kind(), Kind::Protocol);
    assert_eq!(Client::new(|_| {}).hear("250 Ok\r\n").unwrap_err().kind(), Kind::Protocol);
    let mut client = Client::new(|_| {});
    client.hear("220 hello\r\n").unwrap();
    assert_eq!(client.hear("354 Go\r\n").unwrap_err().kind(), Kind::Protocol);
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
        before.iter().for_each(|answer| drop(client.hear(answer).unwrap()));
        assert_eq!(client.hear(last).unwrap_err().kind(), Kind::Protocol, "{answers:?}");
    }
    // To the lone dot behind a 354 for nobody.
    let mut client = Client::ready(&["PIPELINING"]);
    client.machine.begin(transaction()).unwrap();
    client.hear("250 Ok\r\n550 No\r\n354 Go\r\n").unwrap();
    assert_eq!(client.hear("354 Go\r\n").unwrap_err().kind(), Kind::Protocol);
}

/// Behind a chunk that may be refused, RSET comes before the next MAIL (RFC 3030, 2).
#[test]
fn chunks_in_a_row_are_kept_apart() {
    let mut client = Client::ready(&["PIPELINING", "CHUNKING"]);
    for _ in 0..2 {
        assert!(client.machine.may_begin());
        client.give_a_chunk();
        client.steps().unwrap();
    }
    let one = "MAIL FROM:<me@example.org>\r\nRCPT TO:<you@example.com>\r\nBDAT 3 LAST\r\nx\r\n";
    assert_eq!(client.wire, format!("EHLO me\r\n{one}RSET\r\n{one}"));
    let steps = client.hear(&["250 Ok\r\n"; 7].concat()).unwrap();
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Sent { .. })).count(), 2, "{steps:?}");
    // And where the second one is cleaned up after, a server that goes down there takes no message with it.
    client.give_a_chunk();
    let steps = client.hear("250 Ok\r\n550 No\r\n503 Nobody\r\n421 Bye\r\n").unwrap();
    assert!(matches!(steps[..], [.., Step::NotSent { phase: Phase::Rcpt, .. }, Step::Closed]), "{steps:?}");
}

// ---- Logins ----

/// A mechanism of another maker.
struct Echo;

impl SaslExchange for Echo {
    fn mechanism(&self) -> Mechanism {
        Mechanism::Other("X-ECHO")
    }

    fn start(&mut self, session: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        assert!(session.capabilities.offers("AUTH"));
        Ok(None)
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        Ok(challenge.to_vec())
    }
}

#[test]
fn mechanisms_of_others_log_in_too() {
    let mut client = Client::ready_with(&["AUTH X-ECHO"], |settings| settings.secure = true);
    client.machine.login_by(Box::new(Echo)).unwrap();
    client.hear("334 aGVsbG8=\r\n").unwrap();
    let steps = client.hear("535 5.7.8 No\r\n").unwrap();
    assert!(matches!(&steps[..], [Step::Login { reason: None, .. }, Step::Ready]), "{steps:?}");
    assert!(client.wire.ends_with("AUTH X-ECHO\r\naGVsbG8=\r\n"));
    let other = Mechanism::Other("X-ECHO");
    assert!(!other.is_built() && Mechanism::Plain.is_built() && Mechanism::Anonymous.is_built());
    let error = client.machine.login(other, &Credentials::new("u", "p")).unwrap_err();
    assert!(error.message().contains("X-ECHO is no mechanism that envoi has"), "{error}");
}

#[test]
fn what_can_log_in_here() {
    let offer = "AUTH LOGIN XOAUTH2 EXTERNAL PLAIN ANONYMOUS X-OTHER SCRAM-SHA-256-PLUS CRAM-MD5";
    let mechanisms = |credentials: Credentials, secure| {
        let client = Client::ready_with(&[offer], |settings| settings.secure = secure);
        let names: Vec<_> = client.machine.mechanisms(&credentials).iter().map(|m| m.as_str()).collect();
        names.join(" ")
    };
    assert_eq!(mechanisms(Credentials::new("u", "p"), true), "PLAIN LOGIN CRAM-MD5");
    assert_eq!(mechanisms(Credentials::new("u", "p"), false), "CRAM-MD5 PLAIN LOGIN", "what shows it comes last");
    assert_eq!(mechanisms(Credentials::new("u", "p").authorize_as("v"), true), "PLAIN");
    assert_eq!(mechanisms(Credentials::token("u", "t"), true), "XOAUTH2");
    assert_eq!(mechanisms(Credentials::external(), true), "EXTERNAL");
    assert_eq!(mechanisms(Credentials::anonymous("me"), true), "ANONYMOUS");

    let mut client = Client::ready_with(&[offer], |settings| settings.secure = true);
    for (mechanism, credentials, says) in [
        (Mechanism::External, Credentials::new("u", "p"), "EXTERNAL is no mechanism for a password"),
        (Mechanism::Plain, Credentials::token("u", "t"), "PLAIN is no mechanism for a token"),
        (Mechanism::Plain, Credentials::external(), "PLAIN is no mechanism for neither password nor token"),
        (Mechanism::Login, Credentials::anonymous("me"), "LOGIN is no mechanism for no credentials at all"),
        (Mechanism::Login, Credentials::new("u", "p").authorize_as("v"), "acts for \"v\""),
    ] {
        let error = client.machine.login(mechanism, &credentials).unwrap_err();
        assert_eq!((error.kind(), error.phase()), (Kind::Request, Phase::Auth));
        assert!(error.message().contains(says), "{error}");
    }
    assert_eq!(client.steps().unwrap(), [Step::Ready], "nothing was sent");
}

/// 354 is a go-ahead for a message, and nothing that a secret answers.
#[test]
fn only_334_is_a_challenge() {
    let mut client = Client::ready_with(&["AUTH LOGIN"], |settings| settings.secure = true);
    client.machine.login(Mechanism::Login, &Credentials::new("alice", "secret")).unwrap();
    let error = client.hear("354 VXNlcm5hbWU6\r\n").unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    assert!(client.wire.ends_with("AUTH LOGIN\r\n"), "nothing more was said");
}

#[test]
fn a_challenge_has_a_limit() {
    let login = || {
        let mut client = Client::ready_with(&["AUTH LOGIN"], |settings| {
            (settings.secure, settings.limits.line) = (true, 100);
        });
        client.machine.login(Mechanism::Login, &Credentials::new("u", "p")).unwrap();
        client
    };
    // Each line keeps to the limit, and all of them together do not.
    let line = format!("334-{}\r\n", "A".repeat(48));
    let mut client = login();
    client.hear(&format!("{line}{line}334 AAAA\r\n")).unwrap();
    assert!(client.wire.ends_with("AUTH LOGIN\r\ndQ==\r\n"), "{}", client.wire);
    let error = login().hear(&format!("{line}{line}334 AAAAA\r\n")).unwrap_err();
    assert!(error.message().contains("a challenge longer than the limit of 100 bytes"), "{error}");
    assert_eq!(error.kind(), Kind::Protocol);
}

// ---- The parts ----

#[test]
fn names_and_commands() {
    assert_eq!(ClientName::literal(Ipv4Addr::new(192, 0, 2, 1).into()).as_str(), "[192.0.2.1]");
    assert_eq!(ClientName::literal(Ipv6Addr::LOCALHOST.into()).as_str(), "[IPv6:::1]");
    assert_eq!(RawCommand::new("VRFY you").unwrap().as_str(), "VRFY you");
    let error = RawCommand::new("X".repeat(2001)).unwrap_err();
    assert!(error.message().contains("longer than 2000 bytes"), "{error}");
    assert!(RawCommand::new("X".repeat(2000)).is_ok());
}

#[test]
fn a_stuffer_is_at_the_beginning_of_a_message() {
    let (mut stuffer, mut output) = (Stuffer::default(), Output::default());
    stuffer.push(Chunk::from(".\n"), &mut output);
    stuffer.finish(&mut output);
    assert_eq!(output.front(), b"..\r\n.\r\n");
}

#[test]
fn a_reply_may_be_as_long_as_its_limit_and_no_longer() {
    let bytes = "250-first\r\n250 second\r\n";
    let parse = |limit| {
        let mut limits = Limits::default();
        limits.reply_bytes = limit;
        ReplyParser::new(limits).parse(&mut BytesMut::from(bytes)).map(|reply| reply.is_some())
    };
    assert_eq!(parse(bytes.len()), Ok(true));
    let error = parse(bytes.len() - 1).unwrap_err();
    assert_eq!(error, BadReply::ReplyTooLong(bytes.len() - 1));
    assert_eq!(error.to_string(), "a reply is longer than the limit of 22 bytes");
}

#[test]
fn a_long_line_is_cut_in_the_transcript() {
    let mut client = Client::ready(&[]);
    client.machine.command(&RawCommand::new(format!("VRFY {}", "x".repeat(1000))).unwrap()).unwrap();
    let line = client.machine.transcript().lines().last().unwrap();
    assert!(line.ends_with("x…") && line.len() < 500, "{line}");
}
