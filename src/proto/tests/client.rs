//! What only the client asks of a machine.

#[cfg(feature = "pool")]
use crate::proto::Event;
use crate::proto::{ClientName, Machine, Settings, Step};

fn machine() -> Machine {
    Machine::new(Settings::new(ClientName::new("me").unwrap()))
}

/// What is next when this came, and what follows from it went.
fn feed(machine: &mut Machine, bytes: &str) -> Step {
    assert_eq!(machine.input(bytes.as_bytes()), bytes.len());
    let step = machine.step().unwrap();
    machine.wrote(machine.output().len());
    step
}

#[cfg(feature = "pool")]
fn begin(machine: &mut Machine) {
    machine.mail(None.into()).unwrap();
    machine.wrote(machine.output().len());
}

#[test]
fn a_second_session_keeps_the_transcript_of_the_first() {
    let (mut earlier, mut later) = (machine(), machine());
    let _ = feed(&mut earlier, "220 first\r\n");
    earlier.transcript_mut().note("TLS failed");
    let _ = feed(&mut later, "220 second\r\n");
    let _ = feed(&mut later, "250 mail.example.org\r\n");
    later.follow(&earlier);
    assert_eq!(later.round_trips(), 3);
    assert_eq!(
        later.transcript().to_string(),
        "S: 220 first\nC: EHLO me\n-- TLS failed\n-- another connection\nS: 220 second\n\
         C: EHLO me\nS: 250 mail.example.org\n"
    );
}

#[cfg(feature = "pool")]
#[test]
fn a_session_knows_whether_it_is_between_transactions() {
    let mut machine = machine();
    let _ = feed(&mut machine, "220 hello\r\n");
    assert!(!machine.is_between_transactions());
    let _ = feed(&mut machine, "250 mail.example.org\r\n");
    for begun in 0..3 {
        assert!(machine.is_between_transactions());
        assert_eq!(machine.transactions_begun(), begun);
        begin(&mut machine);
        assert!(!machine.is_between_transactions());
        assert!(matches!(
            feed(&mut machine, "550 No\r\n"),
            Step::Event(Event::Sender { .. })
        ));
    }
}

#[cfg(feature = "client")]
#[test]
fn secrets_of_the_client_are_hidden_in_the_transcript() {
    let mut machine = machine();
    machine.secrets_mut().add_with_base64("correct-horse");
    let bytes = b"no such user: correct-horse\r\n";
    assert_eq!(machine.input(bytes), bytes.len());
    let error = machine.step().unwrap_err().to_string();
    assert!(
        error.contains("no such user: ***") && !error.contains("correct"),
        "{error}"
    );
}
