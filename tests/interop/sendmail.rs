//! The mailer `Sendmail` with the `sendmail` programs of Postfix and Exim, which put a message into
//! the queue that the servers deliver from.

use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Envelope, Error, ErrorKind, Message, Outcome};

use crate::servers::{both, exim, postfix, someone};

/// With all headers that the servers would add.
fn raw(body: &[u8]) -> Vec<u8> {
    let header = "Date: Thu, 1 Jan 2026 12:00:00 +0000\r\nMessage-ID: <1@envoi.test>\r\n\
        From: <me@envoi.test>\r\nTo: undisclosed-recipients:;\r\nSubject: by sendmail\r\n\r\n";
    [header.as_bytes(), body].concat()
}

fn message(from: Option<Address>, to: &[Address], raw: Vec<u8>) -> Message<'static> {
    Message::raw(raw).envelope(Envelope::new(from, to.to_vec()).unwrap())
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn sendmail_delivers_each_byte() {
    let body =
        b"Gr\xc3\xbc\xc3\x9fe\r\nLatin-1: \xe9\r\n.\r\n..\r\n.hidden\r\n\r\nFrom the start\r\n\
        \t trailing \t\r\n.\r\nthe end\r\n";
    let long = [b"a".repeat(998), b"\r\n".to_vec()].concat();
    let raw = raw(&[&body[..], &long].concat());
    for server in both() {
        let (from, to) = (someone("from"), someone("to"));
        let message = message(Some(from.clone()), std::slice::from_ref(&to), raw.clone());
        let receipt = server.sendmail(false).send(message).await.unwrap();
        assert!(receipt.all_accepted());
        assert_eq!(receipt.bytes, raw.len() as u64);
        let delivered = server.delivered(&to).await;
        assert_eq!(delivered.message, raw);
        let path = format!("ath: <{from}>");
        assert!(delivered.trace.contains(&path), "{}", delivered.trace);
    }
}

/// As the sender and as recipients: none is taken for an option or for several addresses.
#[tokio::test]
#[ignore = "needs real servers"]
async fn sendmail_delivers_to_odd_addresses() {
    for server in both() {
        let mut odd = ["-oq.tmp", "-t", "o'neil+tag", "jürgen"]
            .map(someone)
            .to_vec();
        let quoted = format!("\"a,b {}\"@envoi.test", someone("-v").as_str().len());
        odd.push(Address::new(quoted).unwrap());
        for (times, from) in [(1, Some(someone("-Cfile"))), (2, None)] {
            let path = match &from {
                Some(from) => format!("ath: <{from}>"),
                None => "ath: <>".to_owned(),
            };
            let message = message(from, &odd, raw(b"Hello.\r\n"));
            let receipt = server.sendmail(false).send(message).await.unwrap();
            assert!(receipt.all_accepted());
            for to in &odd {
                let mail = server.mailbox(to, times).await;
                assert!(mail.last().unwrap().trace.contains(&path), "{to}: {mail:?}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn sendmail_delivers_to_many_recipients() {
    for server in both() {
        let to: Vec<_> = (0..50).map(|_| someone("many")).collect();
        let hidden = someone("hidden");
        let names: Vec<_> = to.iter().map(|to| to.to_string()).collect();
        let mail = MessageBuilder::new()
            .from("me@envoi.test")
            .to(names)
            .bcc(hidden.to_string())
            .subject("To all")
            .text_body("Hello.");
        let receipt = server.sendmail(false).send(mail).await.unwrap();
        assert!(receipt.all_accepted());
        assert_eq!(receipt.recipients.len(), 51);
        for to in to.iter().chain([&hidden]) {
            let mail = server.delivered(to).await;
            assert!(!mail.text().contains("hidden"), "{}", mail.text());
        }
    }
}

/// The program takes the message, and the server reports the address to the sender.
#[tokio::test]
#[ignore = "needs real servers"]
async fn an_address_that_is_wrong_bounces() {
    for server in both() {
        let (from, right, wrong) = (someone("from"), someone("right"), someone("bounced"));
        let message = message(
            Some(from.clone()),
            &[wrong.clone(), right.clone()],
            raw(b"Hello.\r\n"),
        );
        let receipt = server.sendmail(false).send(message).await.unwrap();
        assert!(receipt.all_accepted());
        server.delivered(&right).await;
        let bounce = server.delivered(&from).await;
        assert!(bounce.trace.contains("ath: <>"), "{}", bounce.trace);
        for words in [wrong.as_str(), "No such user"] {
            assert!(bounce.text().contains(words), "{}", bounce.text());
        }
        assert!(server.has_no_mailbox(&wrong));
    }
}

/// Exim as it is configured to look at the recipients first: it refuses the whole message.
#[tokio::test]
#[ignore = "needs real servers"]
async fn an_address_that_is_refused_fails_with_the_text() {
    let (from, right, wrong) = (someone("from"), someone("right"), someone("refused"));
    let to = [right.clone(), wrong.clone()];
    let message = message(Some(from.clone()), &to, raw(b"Hello.\r\n"));
    let error = exim().sendmail(false).send(message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.is_permanent());
    let text = error.to_string();
    assert!(
        text.contains("exit status 1: ") && text.contains("550 5.1.1 User unknown"),
        "{text}"
    );
    let outcomes = error.receipt().unwrap().recipients.iter();
    assert!(
        outcomes
            .into_iter()
            .all(|to| to.outcome == Outcome::NotTried)
    );
    // The next message overtakes nothing: no mail, and no report to the sender, is under way.
    let next = Message::raw(raw(b"Next.\r\n"))
        .envelope(Envelope::new(None, [from.clone(), right.clone()]).unwrap());
    let receipt = exim().sendmail(false).send(next).await.unwrap();
    assert!(receipt.all_accepted());
    for to in [&from, &right] {
        assert!(exim().delivered(to).await.text().contains("Next."));
    }
    assert!(exim().has_no_mailbox(&wrong));
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn sendmail_exits_by_what_failed() {
    let to = [someone("nothing")];
    let hello = || message(None, &to, raw(b"Hello.\r\n"));
    let transient = |error: Error, words: &str| {
        assert!(error.is_transient(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("exit status 75 (EX_TEMPFAIL): ") && text.contains(words),
            "{text}"
        );
    };
    let closed = postfix().sendmail(true);
    transient(
        closed.send(hello()).await.unwrap_err(),
        "User root(0) is not allowed to submit mail",
    );
    let misspelt = postfix().sendmail(false).arg("--bogus");
    transient(
        misspelt.send(hello()).await.unwrap_err(),
        "invalid option -- '-'",
    );
    let misspelt = exim().sendmail(false).arg("--bogus");
    let error = misspelt.send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("option --bogus"), "{error}");
    for server in both() {
        assert!(server.has_no_mailbox(&to[0]));
    }
}
