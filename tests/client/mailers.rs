//! The mailers as `dyn Mailer`: what each of them does with a message.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};

use envoi::delivery::Priority;
use envoi::mail_builder::MessageBuilder;
use envoi::mailer::Directory;
use envoi::testing::{Recorder, Server};
use envoi::{
    Address, Attachment, Client, DeliveryOptions, Envelope, Error, ErrorKind, Handover, LineEnds,
    Mailer, Message, Outcome, Phase,
};
use futures::FutureExt as _;
use futures::future::{join_all, try_join_all};
use support::{hello, hello_to};
use tokio::sync::Notify;

fn envelope() -> Envelope {
    let to = ["you@example.com", "hidden@example.com"].map(|to| Address::new(to).unwrap());
    Envelope::new(Address::new("me@example.org").unwrap(), to).unwrap()
}

/// Messages with all that changes on the way, each as often as it is needed.
fn messages() -> [fn() -> Message<'static>; 4] {
    [
        || {
            let mail = MessageBuilder::new()
                .from("me@example.org")
                .to("you@example.com")
                .bcc("hidden@example.com")
                .message_id("1@example.org")
                .date(1_000_000_000_u64)
                .text_body(".\n..dots\nGrüße\n");
            mail.into()
        },
        || {
            let raw = "Bcc: hidden@example.com\nSubject: a\n\n.\nno line end, a \r alone";
            Message::raw(raw).envelope(envelope())
        },
        || {
            let raw = "Bcc: hidden@example.com\r\nSubject: a\r\n\r\nlines\nof a stream\r\r\n";
            Message::raw_stream(raw.as_bytes()).envelope(envelope())
        },
        || {
            let raw = [
                "Subject: long\r\n\r\n".to_owned(),
                "a line\n".repeat(40_000),
            ]
            .concat();
            Message::raw(raw).envelope(envelope())
        },
    ]
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn every_mailer_gives_on_the_same_bytes() {
    let server = Server::builder().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::new(folder.path().join("new"));
    let recorder = Recorder::new();
    for message in messages() {
        let mailers: [Arc<dyn Mailer>; 4] = [
            Arc::new(client.clone()),
            Arc::new(client.pool(1)),
            Arc::new(directory.clone()),
            Arc::new(recorder.clone()),
        ];
        let mut bytes = Vec::new();
        for mailer in &mailers {
            let receipt = mailer.send(message()).await.unwrap();
            assert!(receipt.all_accepted() && receipt.queue_id().is_some());
            assert_eq!(receipt.recipients.len(), 2);
            bytes.push(receipt.bytes);
            if let Some(path) = directory.file(&receipt) {
                let written = fs::read(&path).unwrap();
                assert_eq!(written.len() as u64, receipt.bytes);
                let json = fs::read(path.with_extension("json")).unwrap();
                let expected = "{\"reverse_path\":\"me@example.org\",\
                    \"recipients\":[\"you@example.com\",\"hidden@example.com\"]}\n";
                assert_eq!(str::from_utf8(&json).unwrap(), expected);
                let read: Envelope = serde_json::from_slice(&json).unwrap();
                assert_eq!(read, envelope());
                assert_eq!(server.next_message().await.read().unwrap(), written);
                assert_eq!(server.next_message().await.read().unwrap(), written);
            }
        }
        let recorded = recorder.next_message().await;
        assert_eq!(recorded.envelope, envelope());
        assert!(!recorded.text().contains("Bcc") && recorded.bytes.ends_with(b"\r\n"));
        assert_eq!(bytes, [recorded.bytes.len() as u64; 4]);
        let last = files(directory.path(), "eml").pop().unwrap();
        assert_eq!(fs::read(last).unwrap(), recorded.bytes);
    }
    assert_eq!(files(directory.path(), "eml").len(), messages().len());
    assert!(files(directory.path(), "part").is_empty());
}

/// The callback is called once, and decides whether the message is delivered.
#[tokio::test]
async fn every_mailer_awaits_the_handover() {
    let server = Server::builder().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::new(folder.path().join("new"));
    let recorder = Recorder::new();
    let mailers: [Arc<dyn Mailer>; 4] = [
        Arc::new(client.clone()),
        Arc::new(client.pool(1)),
        Arc::new(directory.clone()),
        Arc::new(recorder.clone()),
    ];
    for mailer in mailers {
        let calls: Arc<Mutex<Vec<Handover>>> = Arc::default();
        let counted = |permission: fn() -> Result<(), io::Error>| {
            let calls = calls.clone();
            Message::from(hello()).on_handover(move |handover| {
                calls.lock().unwrap().push(handover);
                async move { permission() }
            })
        };
        let receipt = mailer.send(counted(|| Ok(()))).await.unwrap();
        assert!(receipt.all_accepted() && receipt.handed_over);
        let call = calls.lock().unwrap().pop().unwrap();
        assert_eq!(call.recipients, [Address::new("you@example.com").unwrap()]);
        assert_eq!((call.number, call.bytes), (1, receipt.bytes));

        let refused = counted(|| Err(io::Error::other("the disk is full")));
        let error = mailer.send(refused).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Handover, Phase::Handover)
        );
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "the disk is full");
        let receipt = error.receipt().unwrap();
        assert!(!receipt.handed_over && error.is_permanent());
        assert_eq!(receipt.recipients[0].outcome, Outcome::NotTried);
        assert_eq!(calls.lock().unwrap().len(), 1);

        // Dropped while it waits.
        let called = Arc::new(Notify::new());
        let calling = called.clone();
        let message = Message::from(hello()).on_handover(move |_| {
            calling.notify_one();
            std::future::pending::<io::Result<()>>()
        });
        tokio::select! {
            _ = mailer.send(message) => unreachable!(),
            () = called.notified() => {}
        }
    }
    // The server has noticed the end of each session that was dropped.
    while server.connections().iter().any(|session| session.is_open) {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.messages().len(), 2);
    assert_eq!(recorder.messages().len(), 1);
    assert_eq!(files(directory.path(), "eml").len(), 1);
    assert!(files(directory.path(), "part").is_empty());
}

#[tokio::test]
async fn a_binary_message_stays_as_it_is() {
    let raw = b"Subject: a\r\n\r\na\nb\rc\0";
    let message = || {
        let message = Message::raw(&raw[..]).envelope(envelope());
        message.line_ends(LineEnds::Keep)
    };
    let recorder = Recorder::new();
    let _ = recorder.send(message()).await.unwrap();
    assert_eq!(recorder.messages()[0].bytes, &raw[..]);
}

#[tokio::test]
async fn mailers_wrap_mailers() {
    async fn generic(mailer: impl Mailer) {
        assert!(mailer.send(hello().into()).await.unwrap().all_accepted());
    }
    let recorder = Recorder::new();
    generic(&recorder).await;
    generic(Arc::new(recorder.clone()) as Arc<dyn Mailer>).await;
    generic(Box::new(recorder.clone()) as Box<dyn Mailer>).await;
    tokio::spawn(generic(recorder.clone())).await.unwrap();
    assert_eq!(recorder.messages().len(), 4);
}

/// The address is in the envelope alone.
#[tokio::test]
async fn a_refused_message_goes_to_no_mailer() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::new();
    let mailers: [&dyn Mailer; 2] = [&Directory::new(folder.path()), &recorder];
    for mailer in mailers {
        let error = mailer.send(Message::raw("no header\n\n").envelope(envelope()));
        assert_eq!(error.await.unwrap_err().kind(), ErrorKind::Request);
        let missing = Message::from(
            MessageBuilder::new()
                .from("me@example.org")
                .to("a@b.example"),
        )
        .attach(Attachment::file(folder.path().join("missing")));
        let error = mailer.send(missing).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input, "{error}");
        // It fails after its beginning was written.
        let late = Attachment::reader("a", "a/b", &b"abc"[..]).size(4);
        let mail = MessageBuilder::new()
            .from("me@example.org")
            .to("a@b.example")
            .text_body("a");
        let error = mailer
            .send(Message::from(mail).attach(late))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Input, Phase::Body)
        );
    }
    assert!(recorder.messages().is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_is_shared_by_many() {
    let folder = tempfile::tempdir().unwrap();
    let sending = (0..50).map(|_| async {
        let directory = Directory::new(folder.path());
        directory.send(hello()).await
    });
    let receipts = try_join_all(sending).await.unwrap();
    let mut ids: Vec<_> = receipts
        .iter()
        .map(|receipt| receipt.queue_id().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    for kind in ["eml", "json"] {
        let files = files(folder.path(), kind);
        let names: Vec<_> = files.iter().map(|path| path.file_stem().unwrap()).collect();
        assert_eq!(names, ids);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 100);
}

#[cfg(unix)]
#[tokio::test]
async fn files_of_a_directory_belong_to_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::new(folder.path().join("a/b"));
    let receipt = directory.send(hello()).await.unwrap();
    let message = directory.file(&receipt).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&message), 0o600);
    assert_eq!(mode(&message.with_extension("json")), 0o600);
    assert_eq!(mode(directory.path()), 0o700);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Directory::new(&path).send(hello()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.is_permanent() && error.hint().is_some());
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    let receipt = error.receipt().unwrap();
    assert_eq!(receipt.recipients[0].outcome, Outcome::NotTried);
}

#[tokio::test]
async fn a_dropped_directory_call_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::new(folder.path());
    let (mut writer, reader) = tokio::io::duplex(64);
    let message = Message::raw_stream(reader).envelope(envelope());
    {
        let mut sending = pin!(directory.send(message));
        assert!(sending.as_mut().now_or_never().is_none());
        let header = tokio::io::AsyncWriteExt::write_all(&mut writer, b"Subject: a\r\n\r\nabc");
        header.await.unwrap();
        while files(folder.path(), "part").is_empty() {
            assert!(sending.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_recorder_fails_as_it_is_told() {
    let recorder = Recorder::new();
    let lost = Error::new(
        ErrorKind::Closed,
        Phase::EndOfData,
        "the connection was closed",
    );
    recorder.fail_next(lost.clone().with_outcome_unknown(true));
    recorder.fail_next(lost.clone());
    let full = Error::new(ErrorKind::Refused, Phase::Mail, "refused");
    recorder.fail_with(full.with_reply("452 4.3.1 Disk full".parse().unwrap()));

    let outcome = async || {
        let error = recorder.send(hello()).await.unwrap_err();
        let recipient = error.receipt().unwrap().recipients[0].clone();
        (
            error.outcome_unknown(),
            recipient.outcome.clone(),
            recipient.is_transient(),
        )
    };
    assert_eq!(outcome().await, (true, Outcome::Unknown, false));
    assert_eq!(outcome().await, (false, Outcome::NotTried, true));
    for _ in 0..2 {
        assert_eq!(outcome().await, (false, Outcome::NotTried, true));
    }
    assert!(recorder.messages().is_empty());
    recorder.fail_with(None);
    assert!(recorder.send(hello()).await.unwrap().all_accepted());
    assert_eq!(recorder.messages().len(), 1);
}

#[tokio::test]
async fn a_recorder_refuses_recipients() {
    let recorder = Recorder::new();
    recorder.refuse_recipient("full@EXAMPLE.com", "452 4.2.2 Mailbox full");
    recorder.refuse_recipient("unknown@example.com", "550 5.1.1 No such user");
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to(vec![
            "full@example.com",
            "you@example.com",
            "unknown@example.com",
        ])
        .text_body("Hello.");
    let receipt = recorder.send(mail).await.unwrap();
    let left: Vec<_> = receipt
        .not_accepted()
        .map(|to| (to.address.as_str(), to.is_transient()))
        .collect();
    assert_eq!(
        left,
        [("full@example.com", true), ("unknown@example.com", false)]
    );
    let message = &recorder.messages()[0];
    assert_eq!(
        message.envelope.recipients(),
        [Address::new("you@example.com").unwrap()]
    );

    let error = recorder
        .send(hello_to(&["unknown@example.com"]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.reply().unwrap().code()),
        (ErrorKind::Refused, 550)
    );
    let receipt = error.receipt().unwrap();
    assert!(
        matches!(&receipt.recipients[0].outcome, Outcome::Refused(reply) if reply.code() == 550)
    );
    assert_eq!(recorder.messages().len(), 1);
}

#[tokio::test]
async fn a_recorder_returns_each_message_once() {
    let recorder = Recorder::new();
    let waiting = recorder.clone();
    let first = tokio::spawn(async move { waiting.next_message().await });
    let options = DeliveryOptions::new().priority(Priority::new(3).unwrap());
    let _ = recorder
        .send(Message::from(hello()).delivery(options.clone()))
        .await
        .unwrap();
    assert_eq!(first.await.unwrap().delivery, options);
    assert!(recorder.next_message().now_or_never().is_none());
    join_all((0..3).map(|_| recorder.send(hello()))).await;
    for _ in 0..3 {
        assert_eq!(
            recorder.next_message().await.delivery,
            DeliveryOptions::default()
        );
    }
    recorder.clear();
    assert!(recorder.messages().is_empty());
    assert!(recorder.next_message().now_or_never().is_none());
}
