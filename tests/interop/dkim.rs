//! DKIM: what Postfix, Exim and Dovecot deliver has signatures that dkimpy and OpenDKIM verify.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use envoi::dkim::Canonicalization::{Relaxed, Simple};
use envoi::dkim::{DkimKey, DkimSigner};
use envoi::{Attachment, Client, Message};

use crate::servers::{ALICE, Server, both, dovecot, lockstep, someone, with_crlf};
use crate::settings::hello;
use support::noise;

fn signer(selector: &str, key: &str) -> DkimSigner {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dkim/tests/keys");
    let key = DkimKey::from_file(format!("{folder}/{key}.pem")).unwrap();
    DkimSigner::new("envoi.test", selector, key).unwrap()
}

/// One of each algorithm, and of each canonicalization.
fn signers() -> Vec<DkimSigner> {
    vec![
        signer("rsa", "rsa-2048"),
        signer("ed", "ed25519"),
        signer("long", "rsa-4096").canonicalization(Simple, Simple),
        signer("mixed", "rsa-3072").canonicalization(Relaxed, Simple),
        signer("edsimple", "ed25519").canonicalization(Simple, Relaxed),
    ]
}

/// Writes the records that the signers publish into a file, one in each line.
fn publish(signers: &[DkimSigner], folder: &Path) -> std::path::PathBuf {
    let records = signers.iter().map(|signer| {
        let record = signer.dns_record().unwrap();
        format!("{} {}\n", record.name, record.value)
    });
    let path = folder.join("records");
    std::fs::write(&path, records.collect::<String>()).unwrap();
    path
}

/// The number of signatures, after dkimpy has verified them all.
fn verified_by_dkimpy(message: &[u8], records: &Path) -> usize {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/verify_dkim.py");
    // Debian's own Python has Debian's package.
    let mut python = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(records)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(message).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", support::text(message));
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// The number of signatures that OpenDKIM verifies.
fn verified_by_opendkim(message: &[u8], records: &Path) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let (file, settings) = (
        folder.path().join("message"),
        folder.path().join("settings"),
    );
    std::fs::write(&file, message).unwrap();
    let records = records.display();
    std::fs::write(
        &settings,
        format!("TestPublicKeys {records}\nMaximumSignaturesToVerify 9\nSyslog no\nMode v\n"),
    )
    .unwrap();
    let output = Command::new("opendkim")
        .arg("-vvv")
        .arg("-x")
        .arg(&settings)
        .arg("-t")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("succeeded"),
        "{said}{}",
        support::text(message)
    );
    said.matches("dkim=pass").count()
}

/// The file that a server delivers, with the fields that it puts before the message.
async fn delivered(server: &Server, to: &envoi::Address) -> Vec<u8> {
    let files = server.files(to, 1).await;
    with_crlf(&std::fs::read(&files[0]).unwrap())
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn delivered_messages_have_signatures_that_others_verify() {
    let folder = tempfile::tempdir().unwrap();
    let signers = signers();
    let records = publish(&signers, folder.path());
    let path = folder.path().join("data.bin");
    std::fs::write(&path, noise(300_000)).unwrap();
    // One blank after each colon and none before: Postfix and the test mode of OpenDKIM write them
    // so, which the simple form does not permit.
    let raw = "From: alice@envoi.test\nTo: bob@envoi.test,\n\tcarl@envoi.test\nBcc: x@envoi.test\n\
        Subject: two  words \n\n.\n..dots\ntwo  words \t\n \n\n\nthe end is missing";
    let lmtp = (dovecot().server.clone(), dovecot().lmtp()[0].clone());
    let servers = both()
        .map(|server| (server.clone(), server.plain()))
        .chain([(lockstep(), lockstep().starttls(ALICE)), lmtp]);
    for (server, url) in servers {
        let client = Client::from_url(&url).unwrap();
        for number in 0..3 {
            let to = someone("dkim");
            let envelope =
                envoi::Envelope::new(support::address("alice@envoi.test"), [to.clone()]).unwrap();
            let message = match number {
                0 => Message::from(hello(&to)),
                1 => Message::from(hello(&to)).attach(Attachment::file(&path)),
                _ => Message::raw(raw),
            };
            let message = signers
                .iter()
                .fold(message.envelope(envelope), |message, signer| {
                    message.dkim(signer.clone())
                });
            let receipt = client.send(message).await.unwrap();
            assert!(receipt.all_accepted(), "{receipt:?}");
            let delivered = delivered(&server, &to).await;
            assert_eq!(verified_by_dkimpy(&delivered, &records), signers.len());
            assert_eq!(verified_by_opendkim(&delivered, &records), signers.len());
        }
    }
}

/// What the verifiers accept is not all that they are given.
#[tokio::test]
#[ignore = "needs real servers"]
async fn a_changed_message_is_not_verified() {
    let folder = tempfile::tempdir().unwrap();
    let signer = signer("rsa", "rsa-2048");
    let records = publish(std::slice::from_ref(&signer), folder.path());
    let to = someone("dkim");
    let prepared = Message::from(hello(&to))
        .dkim(signer)
        .prepare()
        .await
        .unwrap();
    let (mut body, mut message) = (prepared.into_body(), Vec::new());
    while let Some(chunk) = body.chunk().await {
        message.extend_from_slice(chunk.unwrap().bytes());
    }
    assert_eq!(verified_by_dkimpy(&message, &records), 1);
    assert_eq!(verified_by_opendkim(&message, &records), 1);
    // A second field of a kind that is oversigned.
    let added = [b"Subject: Changed\r\n", &message[..]].concat();
    let changed = [&message[..], b"more\r\n"].concat();
    for message in [added, changed] {
        for verifies in [verified_by_dkimpy, verified_by_opendkim] {
            let (message, records) = (message.clone(), records.clone());
            let verified = std::panic::catch_unwind(move || verifies(&message, &records));
            assert!(verified.is_err());
        }
    }
}
