//! The file: what is read back from it, whatever has happened to it.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::error::Phase;
use crate::{Error, Receipt};

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(test)
}

fn failed(kind: ErrorKind) -> crate::Result<Receipt> {
    Err(Error::new(kind, Phase::Body, "it failed"))
}

fn unknown() -> crate::Result<Receipt> {
    failed(ErrorKind::Closed).map_err(|error| error.with_outcome_unknown(true))
}

fn refused(reply: &str) -> crate::Result<Receipt> {
    let reply = reply.parse().unwrap();
    failed(ErrorKind::Refused).map_err(|error| error.with_reply(reply))
}

fn sent() -> crate::Result<Receipt> {
    Ok(Receipt::new("there"))
}

#[test]
fn outcomes_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    run(async {
        let journal = Journal::open(&path).await.unwrap();
        let key = "a key with spaces, 100 %, ü, \n and \0";
        for (key, outcome) in [
            (key, sent()),
            ("refused", refused("550 5.1.1 No such user")),
            ("later", refused("450 4.2.1 Busy")),
            (
                "login first",
                refused("530 5.7.57 Client not authenticated"),
            ),
            ("lost", failed(ErrorKind::Closed)),
            ("unknown", unknown()),
            ("bad", failed(ErrorKind::Request)),
            ("login", failed(ErrorKind::Auth)),
        ] {
            journal.hand_over(key).await.unwrap();
            assert_eq!(journal.state(key), Some(JournalState::HandingOver));
            let state = journal.record(key, &outcome).unwrap();
            assert_eq!(journal.state(key), Some(state));
        }
        journal.hand_over(b"\xff bytes").await.unwrap();
        // Not handed over, and not sent: there is nothing to record.
        assert_eq!(
            journal
                .record("untried", &failed(ErrorKind::Connect))
                .unwrap(),
            JournalState::NotSent
        );
        assert_eq!(journal.state("untried"), None);
        journal.close().await.unwrap();

        let journal = Journal::open(&path).await.unwrap();
        let states: Vec<_> = journal
            .to_vec()
            .into_iter()
            .map(|entry| (entry.key.to_vec(), entry.state, entry.note))
            .collect();
        let expected = [
            (key.as_bytes(), JournalState::Sent, ""),
            (b"refused", JournalState::Refused, "550 5.1.1 No such user"),
            (b"later", JournalState::NotSent, "450 4.2.1 Busy"),
            (
                b"login first",
                JournalState::NotSent,
                "530 5.7.57 Client not authenticated",
            ),
            (b"lost", JournalState::NotSent, "it failed"),
            (b"unknown", JournalState::InDoubt, "it failed"),
            (b"bad", JournalState::Refused, "it failed"),
            (b"login", JournalState::NotSent, "it failed"),
            (b"\xff bytes", JournalState::InDoubt, ENDED),
        ];
        assert_eq!(
            states,
            expected.map(|(key, state, note)| (key.to_vec(), state, note.to_owned()))
        );
    });
}

/// Doubt about an earlier copy is removed by its delivery alone: what becomes of a later copy says
/// nothing about it.
#[test]
fn a_message_in_doubt_stays_so_until_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    run(async {
        for (outcome, expected) in [
            (failed(ErrorKind::Closed), JournalState::InDoubt),
            (refused("450 Busy"), JournalState::InDoubt),
            (unknown(), JournalState::InDoubt),
            (refused("550 No"), JournalState::InDoubt),
            (failed(ErrorKind::Request), JournalState::InDoubt),
            (sent(), JournalState::Sent),
        ] {
            for is_handed_over in [false, true] {
                let journal = Journal::open(&path).await.unwrap();
                journal.hand_over("key").await.unwrap();
                journal.close().await.unwrap();
                let journal = Journal::open(&path).await.unwrap();
                if is_handed_over {
                    journal.hand_over("key").await.unwrap();
                    // A second transaction of the same message.
                    journal.hand_over("key").await.unwrap();
                }
                assert_eq!(journal.record("key", &outcome).unwrap(), expected);
                journal.close().await.unwrap();
                let journal = Journal::open(&path).await.unwrap();
                assert_eq!(journal.state("key"), Some(expected));
                journal.close().await.unwrap();
                fs::remove_file(&path).unwrap();
            }
        }
        // A program that has found out sets the state.
        let journal = Journal::open(&path).await.unwrap();
        journal.set("key", JournalState::InDoubt, "").unwrap();
        journal
            .set("key", JournalState::NotSent, "not in the log")
            .unwrap();
        assert_eq!(journal.state("key"), Some(JournalState::NotSent));
        journal.set("key", JournalState::Sent, "").unwrap();
        let error = journal.hand_over("key").await.unwrap_err();
        assert!(matches!(error, JournalError::AlreadySent(key) if key == "key"));
        // The copy that was not permitted does not make the message one to be sent.
        for outcome in [
            failed(ErrorKind::Handover),
            failed(ErrorKind::Request),
            unknown(),
            sent(),
        ] {
            let state = journal.record("key", &outcome).unwrap();
            assert_eq!(state, JournalState::Sent);
        }
        journal.close().await.unwrap();
        let journal = Journal::open(&path).await.unwrap();
        assert_eq!(journal.state("key"), Some(JournalState::Sent));
    });
}

/// What ends a session before its first message is not an outcome of that message.
#[test]
fn failures_of_the_session_are_not_those_of_a_message() {
    let reply: crate::proto::Reply = "554 5.7.1 No".parse().unwrap();
    for (kind, phase, receipt, expected) in [
        (
            ErrorKind::Refused,
            Phase::Greeting,
            true,
            JournalState::NotSent,
        ),
        (
            ErrorKind::Refused,
            Phase::Hello,
            true,
            JournalState::NotSent,
        ),
        (
            ErrorKind::Refused,
            Phase::Connect,
            true,
            JournalState::NotSent,
        ),
        (ErrorKind::Refused, Phase::Mail, true, JournalState::Refused),
        (ErrorKind::Refused, Phase::Rcpt, true, JournalState::Refused),
        (
            ErrorKind::Refused,
            Phase::EndOfData,
            true,
            JournalState::Refused,
        ),
        (
            ErrorKind::Unsupported,
            Phase::Connect,
            true,
            JournalState::NotSent,
        ),
        (
            ErrorKind::Unsupported,
            Phase::Mail,
            true,
            JournalState::Refused,
        ),
        (ErrorKind::Request, Phase::Auth, true, JournalState::NotSent),
        // A setting of the endpoint, and a message that is not valid.
        (
            ErrorKind::Request,
            Phase::Setup,
            true,
            JournalState::NotSent,
        ),
        (
            ErrorKind::Request,
            Phase::Setup,
            false,
            JournalState::Refused,
        ),
    ] {
        let mut error = Error::new(kind, phase, "it failed").with_reply(reply.clone());
        if receipt {
            let address = crate::Address::new("b@example.com").unwrap();
            let recipient = crate::Recipient::new(address, crate::Outcome::NotTried);
            let mut receipt = Receipt::new("there");
            receipt.recipients.push(recipient);
            error = error.with_receipt(receipt);
        }
        assert_eq!(JournalState::of(&Err(error)), expected, "{kind} {phase}");
    }
    let endpoint = crate::Endpoint::new("not a host");
    let envelope = crate::Envelope::new(
        crate::Address::new("a@example.org").unwrap(),
        [crate::Address::new("b@example.com").unwrap()],
    );
    let message = crate::Message::raw("Subject: x\n\nHi.\n").envelope(envelope.unwrap());
    let sent = run(crate::Client::new(endpoint).send(message));
    assert_eq!(sent.as_ref().unwrap_err().kind(), ErrorKind::Request);
    assert_eq!(JournalState::of(&sent), JournalState::NotSent);
}

#[test]
fn a_journal_has_one_user_and_one_subject() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    run(async {
        let journal = Journal::open_for(&path, "template").await.unwrap();
        let error = Journal::open(&path).await.unwrap_err();
        assert!(matches!(&error, JournalError::InUse(at) if *at == path));
        assert!(error.to_string().contains("in use by another process"));
        let clone = journal.clone();
        journal.close().await.unwrap();
        assert!(matches!(clone.sync().await, Err(JournalError::Closed)));
        assert!(matches!(
            clone.hand_over("a").await,
            Err(JournalError::Closed)
        ));

        let error = Journal::open_for(&path, "another").await.unwrap_err();
        assert!(
            matches!(error, JournalError::OtherFingerprint(_)),
            "{error}"
        );
        let journal = Journal::open(&path).await.unwrap();
        assert_eq!(journal.fingerprint().unwrap().len(), 64);
        journal.close().await.unwrap();
        Journal::open_for(&path, "template").await.unwrap();
    });
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        // An empty file that another program has created.
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        run(async { Journal::open(&path).await.unwrap().close().await.unwrap() });
        assert_eq!(mode(), 0o600);
    }
}

/// Files that are something else are not changed.
#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let open = || run(Journal::open(&path));
    let damaged_header = record::header(None).replace(" - ", " x ");
    for (content, expected) in [
        ("email,name\nbob@example.com,Bob\n", "is not a journal"),
        ("x", "is not a journal"),
        ("\n", "is not a journal"),
        (
            "envoi-journal 2 - 00000000\n",
            "a format that this version does not know",
        ),
        (&damaged_header, "line 1 of the journal"),
        (
            &format!("{}{}", record::MAGIC, "x".repeat(300)),
            "line 1 of the journal",
        ),
    ] {
        fs::write(&path, content).unwrap();
        let error = open().unwrap_err();
        assert!(error.to_string().contains(expected), "{content:?}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let error = run(Journal::open(folder.path())).unwrap_err();
    assert!(matches!(error, JournalError::Io(..)), "{error}");
    let error = run(Journal::open(folder.path().join("missing/file"))).unwrap_err();
    assert!(matches!(error, JournalError::Io(..)), "{error}");
}

/// Damage before the end is not repaired: the line may be that of a message that was sent.
#[test]
fn a_damaged_line_before_the_end_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    run(async {
        let journal = Journal::open(&path).await.unwrap();
        for key in ["a", "b", "c"] {
            journal.hand_over(key).await.unwrap();
        }
        journal.close().await.unwrap();
        let whole = fs::read(&path).unwrap();
        let second = whole
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(1)
            .unwrap()
            .0;
        for flipped in [second + 1, second + 12, second + 40] {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = Journal::open(&path).await.unwrap_err();
            assert!(matches!(error, JournalError::Damaged(_, 3)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        // Damage in the last line is its torn end.
        let mut bytes = whole.clone();
        *bytes.iter_mut().rev().nth(3).unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let journal = Journal::open(&path).await.unwrap();
        assert_eq!(journal.to_vec().len(), 2);
    });
}

/// Hand-overs that wait together share the sync of the file.
#[test]
fn waiting_hand_overs_are_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    run(async {
        let journal = Journal::open(&path).await.unwrap();
        let keys: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let all = keys.iter().map(|key| journal.hand_over(key));
        for result in futures_util::future::join_all(all).await {
            result.unwrap();
        }
        // Read by its path, as another process would after this one was killed.
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 201);
        // Dropped without `close`, it writes what was recorded.
        for key in &keys {
            journal.set(key, JournalState::Sent, "ok").unwrap();
        }
        drop(journal);
        let journal = loop {
            match Journal::open(&path).await {
                Err(JournalError::InUse(_)) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        assert!(
            journal
                .to_vec()
                .iter()
                .all(|entry| entry.state == JournalState::Sent)
        );
    });
}

/// Reads the content of a file.
fn read(bytes: &[u8]) -> (Vec<JournalEntry>, bool) {
    let mut entries = Entries::default();
    let content = file::read(Path::new("file"), &mut &*bytes, |record| {
        entries.set(record)
    });
    let entries = entries.list.into_iter().map(|entry| entry.entry).collect();
    (entries, content.unwrap().is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut at every byte, as a crash leaves it, and whatever the disk has after it, the file has
    /// every record that was complete, and no other.
    #[test]
    fn no_complete_record_is_lost(
        records in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..12), 0..5_usize, ".{0,20}"),
            0..8,
        ),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = record::header(Some(&record::fingerprint(b"common"))).into_bytes();
        let header = bytes.len();
        let mut entries = Entries::default();
        // The length of the file after each record, and the entries then.
        let entries_of = |entries: &Entries| -> Vec<_> {
            entries.list.iter().map(|entry| entry.entry.clone()).collect()
        };
        let mut history = vec![(bytes.len(), vec![])];
        for (key, state, note) in records {
            let record = Record::new(&key, JournalState::ALL[state], &note);
            bytes.extend(record.to_line().bytes());
            entries.set(record);
            history.push((bytes.len(), entries_of(&entries)));
        }
        let garbage: Vec<_> = garbage.into_iter().filter(|byte| *byte != b'\n').collect();
        for length in 0..=bytes.len() {
            let cut = &bytes[..length];
            let complete = history.iter().rev().find(|(end, _)| *end <= length);
            let expected = complete.map_or(&[][..], |(_, entries)| entries);
            prop_assert_eq!(read(cut), (expected.to_vec(), length >= header));
            if length >= header {
                let (found, _) = read(&[cut, &garbage].concat());
                prop_assert_eq!(found, expected.to_vec());
            }
        }
    }
}

/// What is left of the file is cut off, and further records follow the complete ones.
#[test]
fn a_torn_file_takes_further_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    run(async {
        let journal = Journal::open_for(&path, "common").await.unwrap();
        journal.hand_over("a").await.unwrap();
        journal.close().await.unwrap();
        let whole = fs::read(&path).unwrap();
        let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for length in [
            0,
            1,
            14,
            20,
            header - 1,
            header,
            header + 1,
            whole.len() - 1,
            whole.len(),
        ] {
            fs::write(&path, &whole[..length]).unwrap();
            let journal = Journal::open_for(&path, "common").await.unwrap();
            let expected = (length == whole.len()).then_some(JournalState::InDoubt);
            assert_eq!(journal.state("a"), expected, "{length}");
            journal.hand_over("b").await.unwrap();
            journal.close().await.unwrap();
            let journal = Journal::open_for(&path, "common").await.unwrap();
            assert_eq!(journal.state("a"), expected);
            assert_eq!(journal.state("b"), Some(JournalState::InDoubt));
            journal.close().await.unwrap();
        }
    });
}
