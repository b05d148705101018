//! What only the client asks of a machine.

use super::{ClientName, Machine, Settings, Step};

/// Greeted with this, and offered nothing.
fn greeted(greeting: &str) -> Machine {
    let mut machine = Machine::new(Settings::new(ClientName::new("me").unwrap()));
    for bytes in [format!("220 {greeting}\r\n"), "250 mail.example.org\r\n".into()] {
        let _ = machine.input(bytes.as_bytes());
        let _ = machine.step().unwrap();
        machine.wrote(machine.output().len());
    }
    assert_eq!(machine.step().unwrap(), Step::Ready);
    machine
}

#[test]
fn a_session_that_follows_another_tells_of_both() {
    let (mut earlier, mut later) = (greeted("first"), greeted("second"));
    earlier.transcript_mut().note("TLS failed");
    later.follow(&earlier);
    assert_eq!(later.round_trips(), 4);
    assert_eq!(
        later.transcript().to_string(),
        "S: 220 first\nC: EHLO me\nS: 250 mail.example.org\n-- TLS failed\n\
         S: 220 second\nC: EHLO me\nS: 250 mail.example.org\n"
    );
}

#[cfg(feature = "pool")]
#[test]
fn a_session_is_kept_between_transactions() {
    let mut machine = greeted("hello");
    for begun in 0..3 {
        assert!(machine.is_between_transactions());
        assert_eq!(machine.transactions_begun(), begun);
        machine.mail(None.into()).unwrap();
        assert!(!machine.is_between_transactions());
        machine.wrote(machine.output().len());
        let _ = machine.input(b"550 No\r\n");
        assert!(matches!(machine.step(), Ok(Step::Sender { .. })));
    }
}
