//! Dovecot: LMTP, each recipient with an answer of its own behind the message, and submission.

use std::pin::pin;

use envoi::mail_builder::MessageBuilder;
use envoi::proto::{Mechanism, Protocol};
use envoi::tls::Security;
use envoi::{
    Address, Client, Connection, Credentials, Endpoint, Envelope, ErrorKind, Message, Outcome,
    Phase,
};
use futures::stream::{self, StreamExt as _};

use crate::servers::{ALICE, NO_LOGIN, Tap, dovecot, postfix, someone};
use crate::settings::hello;
use support::address;

/// Its mailbox is full, which Dovecot says when the message is there.
fn full() -> Address {
    address("full@envoi.test")
}

fn unknown_user() -> Address {
    address("nobody@envoi.test")
}

fn to_all(recipients: impl IntoIterator<Item = Address>) -> Message<'static> {
    Message::from(hello(&unknown_user()))
        .envelope(Envelope::new(address("alice@envoi.test"), recipients).unwrap())
}

/// What it says for a mailbox: `250` with the address in it, or a refusal.
fn code(outcome: &Outcome) -> u16 {
    match outcome {
        Outcome::Accepted(reply) | Outcome::Refused(reply) => reply.code(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn each_recipient_has_its_own_reply() {
    let dovecot = dovecot();
    for url in dovecot.lmtp() {
        let (first, last) = (someone("lmtp"), someone("lmtp"));
        let client = Client::from_url(&url).unwrap();
        let receipt = client
            .send(to_all([
                first.clone(),
                unknown_user(),
                full(),
                last.clone(),
            ]))
            .await
            .unwrap();
        let codes: Vec<u16> = receipt
            .recipients
            .iter()
            .map(|recipient| code(&recipient.outcome))
            .collect();
        assert_eq!(codes, [250, 550, 552, 250], "{url}: {receipt:?}");
        let Outcome::Accepted(reply) = &receipt.recipients[3].outcome else {
            panic!()
        };
        assert!(
            reply.text().contains(last.as_str()),
            "the answer to the message, and not the one to RCPT: {reply}"
        );
        // A small message and its commands are one flight, and the four answers another.
        assert_eq!(receipt.round_trips, 3, "the connection, LHLO, the message");
        let expected = with_headers_of(hello(&unknown_user()));
        for to in [first, last] {
            assert!(
                dovecot
                    .server
                    .delivered(&to)
                    .await
                    .text()
                    .ends_with(&expected),
                "{url}"
            );
        }
    }
}

/// What stands behind the fields that differ each time.
fn with_headers_of(mail: MessageBuilder<'_>) -> String {
    let text = mail.write_to_string().unwrap();
    text[text.find("Content-Type").unwrap()..].to_owned()
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn each_recipient_has_its_own_reply_after_data() {
    let dovecot = dovecot();
    for url in dovecot.lmtp() {
        let mut connection = Client::from_url(&url).unwrap().connect().await.unwrap();
        let (first, last) = (someone("data"), someone("data"));
        // Its size is unknown: no chunk.
        let text = "Subject: dots\n\n.\n..\nlast\n";
        let envelope = Envelope::new(
            address("alice@envoi.test"),
            [first.clone(), full(), last.clone()],
        )
        .unwrap();
        let message = Message::raw_stream(std::io::Cursor::new(text)).envelope(envelope);
        let receipt = connection.send(message).await.unwrap();
        let codes: Vec<u16> = receipt
            .recipients
            .iter()
            .map(|recipient| code(&recipient.outcome))
            .collect();
        assert_eq!(codes, [250, 552, 250], "{receipt:?}");
        for to in [first, last] {
            assert_eq!(
                dovecot.server.delivered(&to).await.text(),
                text.replace('\n', "\r\n")
            );
        }
        // A large one goes behind DATA, too; the session is in order.
        let to = someone("large");
        let mail = hello(&to).attachment("application/octet-stream", "data.bin", vec![7; 300_000]);
        assert!(connection.send(mail).await.unwrap().all_accepted());
        assert!(dovecot.server.delivered(&to).await.message.len() > 400_000);
        connection.quit().await;
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_message_refused_for_every_recipient_fails() {
    let dovecot = dovecot();
    for url in dovecot.lmtp() {
        let mut connection = Client::from_url(&url).unwrap().connect().await.unwrap();
        let error = connection
            .send(to_all([full(), unknown_user()]))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Refused, Phase::EndOfData),
            "{error}"
        );
        let codes: Vec<u16> = error
            .receipt()
            .unwrap()
            .recipients
            .iter()
            .map(|one| code(&one.outcome))
            .collect();
        assert_eq!(codes, [552, 550], "{error}");
        assert!(error.hint().unwrap().contains("full"), "{error}");

        let error = connection.send(to_all([unknown_user()])).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Refused, Phase::Rcpt),
            "{error}"
        );
        let error = connection.send(
            Message::raw_stream(&b"Subject: x\r\n\r\n"[..])
                .envelope(Envelope::new(None, [unknown_user(), unknown_user()]).unwrap()),
        );
        assert_eq!(error.await.unwrap_err().phase(), Phase::Rcpt);

        let to = someone("after");
        assert!(connection.send(hello(&to)).await.unwrap().all_accepted());
        connection.quit().await;
        assert!(
            dovecot
                .server
                .delivered(&to)
                .await
                .text()
                .ends_with("Hello.\r\n")
        );
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn send_all_reports_each_recipients_reply() {
    let dovecot = dovecot();
    for url in dovecot.lmtp() {
        let mut connection = Client::from_url(&url).unwrap().connect().await.unwrap();
        let to = someone("stream");
        let messages = stream::repeat_with(|| to_all([to.clone(), full()])).take(100);
        let mut sent = 0;
        {
            let mut outcomes = pin!(connection.send_all(messages));
            while let Some(outcome) = outcomes.next().await {
                let receipt = outcome.unwrap();
                let codes: Vec<u16> = receipt
                    .recipients
                    .iter()
                    .map(|one| code(&one.outcome))
                    .collect();
                assert_eq!(codes, [250, 552], "message {sent}: {receipt:?}");
                sent += 1;
            }
        }
        assert_eq!(sent, 100);
        connection.quit().await;
        let delivered = dovecot.server.mailbox(&to, 100).await;
        assert!(
            delivered
                .iter()
                .all(|delivered| delivered.text().ends_with("Hello.\r\n"))
        );
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn single_steps_report_each_recipients_reply() {
    let dovecot = dovecot();
    let mut connection = Client::from_url(&dovecot.lmtp()[1])
        .unwrap()
        .connect()
        .await
        .unwrap();
    let to = someone("steps");
    connection.mail(None).await.unwrap();
    assert!(connection.rcpt(full()).await.unwrap().is_positive());
    assert!(
        connection
            .rcpt(unknown_user())
            .await
            .unwrap()
            .is_permanent()
    );
    assert!(connection.rcpt(to.clone()).await.unwrap().is_positive());
    let mut writer = connection.data().await.unwrap();
    writer.write("Subject: steps\r\n\r\n").await.unwrap();
    let mut verdicts = Vec::new();
    let reply = writer
        .finish_each(|index, reply| verdicts.push((index, reply.code())))
        .await
        .unwrap();
    assert_eq!(verdicts, [(0, 552), (2, 250)]);
    assert!(reply.text().contains(to.as_str()), "{reply}");
    connection.quit().await;
    assert_eq!(
        dovecot.server.delivered(&to).await.text(),
        "Subject: steps\r\n\r\n"
    );
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn lmtp_delivers_over_tls() {
    let dovecot = dovecot();
    let ca = dovecot.server.ca.display();
    for url in dovecot.lmtp() {
        let url = format!(
            "{}&tls=required&trust={ca}",
            url.replace("127.0.0.1", "localhost")
        );
        let to = someone("tls");
        let receipt = Client::from_url(&url)
            .unwrap()
            .send(hello(&to))
            .await
            .unwrap();
        assert!(
            receipt.tls.is_some_and(|tls| tls.is_verified())
                && receipt.recipients[0].outcome.is_accepted()
        );
        let _ = dovecot.server.delivered(&to).await;
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn the_wrong_protocol_is_explained() {
    let dovecot = dovecot();
    let error = Client::from_url(&format!("smtp://127.0.0.1:{}?tls=none", dovecot.port_lmtp))
        .unwrap()
        .connect()
        .await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Hello),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("lmtp://"), "{error}");

    let port = postfix().port_25;
    let error = Client::from_url(&format!("lmtp://127.0.0.1:{port}"))
        .unwrap()
        .connect()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Hello),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("smtp://"), "{error}");
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn probe_reports_dovecots_lmtp() {
    let dovecot = dovecot();
    let [tcp, socket] = dovecot.lmtp();
    let url = format!(
        "{}&trust={}",
        tcp.replace("127.0.0.1", "localhost"),
        dovecot.server.ca.display()
    );
    let report = envoi::probe(&Endpoint::from_url(&url).unwrap())
        .await
        .unwrap();
    assert!(report.is_usable(), "{report}");
    let advised = Endpoint::from_url(&report.advice.unwrap().url).unwrap();
    assert_eq!(
        (advised.protocol(), advised.get_port()),
        (Protocol::Lmtp, dovecot.port_lmtp)
    );
    let to = someone("probe");
    assert!(
        Client::new(advised)
            .send(hello(&to))
            .await
            .unwrap()
            .tls
            .is_some()
    );

    let error = envoi::probe(&Endpoint::from_url(&socket).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request, "{error}");
}

// ---- Submission ----

/// Through Dovecot to Postfix, in chunks all the way.
#[tokio::test]
#[ignore = "needs real servers"]
async fn dovecot_submission_delivers_in_chunks() {
    let (dovecot, postfix) = (dovecot(), postfix());
    let tap = Tap::on(dovecot.server.port_587).await;
    let inside_tls = format!("{}&auth=PLAIN", dovecot.server.starttls(ALICE));
    for (url, is_tapped) in [(inside_tls, false), (in_clear(tap.port), true)] {
        let client = Client::from_url(&url).unwrap();
        let (first, last) = (someone("submission"), someone("submission"));
        let receipt = client
            .send(to_all([first.clone(), unknown_user(), last.clone()]))
            .await
            .unwrap();
        assert_eq!(receipt.mechanism, Some(Mechanism::Plain));
        let codes: Vec<u16> = receipt
            .recipients
            .iter()
            .map(|one| code(&one.outcome))
            .collect();
        assert_eq!(codes, [250, 550, 250], "{receipt:?}");
        assert!(receipt.round_trips <= 6, "{}", receipt.round_trips);
        for to in [first, last] {
            let delivered = postfix.delivered(&to).await;
            assert!(
                delivered.text().ends_with("\r\n\r\nHello.\r\n"),
                "{delivered:?}"
            );
        }
        assert_eq!(tap.log().contains("\r\nBDAT "), is_tapped);
    }
}

fn in_clear(port: u16) -> String {
    format!("smtp://{ALICE}127.0.0.1:{port}?tls=none&auth=PLAIN&auth-in-clear=yes&timeout=30")
}

/// Dovecot checks them itself here, and not for Postfix as in `logins.rs`. 2.3 has no SCRAM with
/// channel binding (-PLUS), 2.4 has; until that is packaged, `tests/client/login.rs` has a server
/// that knows it.
#[tokio::test]
#[ignore = "needs real servers"]
async fn dovecots_strongest_mechanism_is_chosen() {
    let dovecot = dovecot();
    let endpoint = Endpoint::from_url(&dovecot.server.starttls(NO_LOGIN)).unwrap();
    let credentials = Credentials::new("bob@envoi.test", "Grüße@1%20?#&");
    let connection = Connection::connect(&endpoint.credentials(credentials))
        .await
        .unwrap();
    assert_eq!(connection.mechanism(), Some(Mechanism::ScramSha256));
    assert!(
        !connection
            .capabilities()
            .auth()
            .iter()
            .any(|name| name.ends_with("-PLUS")),
        "test it here, too"
    );
    connection.quit().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_missing_unix_socket_is_reported() {
    let endpoint = Endpoint::lmtp_unix("/nonexistent/lmtp.sock").security(Security::None);
    let error = Connection::connect(&endpoint).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Connect, Phase::Connect),
        "{error}"
    );
}
