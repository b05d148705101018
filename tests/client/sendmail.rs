//! The mailer `Sendmail`, with shell scripts as the program.

use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::mailer::Sendmail;
use envoi::{Address, DeliveryOptions, Envelope, Error, ErrorKind, LineEnds, Message};
use envoi::{Outcome, Phase};
use futures::FutureExt as _;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;

/// A script that runs in a folder of its own.
struct Script {
    folder: TempDir,
}

impl Script {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cd = format!("cd '{}'\n", folder.path().display());
        fs::write(folder.path().join("script"), cd + script).unwrap();
        Script { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The shell reads the script: no file that is open for writing in another process is executed.
    fn mailer(&self) -> Sendmail {
        Sendmail::new("/bin/sh").arg(self.path("script"))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    async fn fails(&self, message: Message<'_>) -> Error {
        self.mailer().send(message).await.unwrap_err()
    }
}

fn message(to: &[&str], raw: impl Into<String>) -> Message<'static> {
    let to = to.iter().map(|to| Address::new(*to).unwrap());
    let from = Address::new("me@example.org").unwrap();
    Message::raw(raw.into()).envelope(Envelope::new(from, to).unwrap())
}

fn hello() -> Message<'static> {
    message(&["you@example.com"], "Subject: Hello\r\n\r\nHello.\r\n")
}

/// Larger than a pipe.
fn large() -> Message<'static> {
    let raw = [
        "Subject: large\r\n\r\n".to_owned(),
        "a line\r\n".repeat(100_000),
    ]
    .concat();
    message(&["you@example.com"], raw)
}

/// Each argument is a line in `arguments`, and stdin is in `message`.
const KEEP: &str = "for argument; do echo \"$argument\"; done >arguments\ncat >message\n";

#[tokio::test]
async fn sendmail_gets_the_envelope_and_lines() {
    let script = Script::new(KEEP);
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .bcc("hidden@bücher.example")
        .message_id("1@example.org")
        .date(1_000_000_000_u64)
        .subject("Hello")
        .text_body(".\nHello\n");
    let receipt = script.mailer().send(mail.clone()).await.unwrap();
    assert!(receipt.all_accepted() && receipt.recipients.len() == 2);
    assert_eq!(
        (receipt.server.as_str(), receipt.queue_id()),
        ("/bin/sh", None)
    );
    assert_eq!(
        script.read("arguments"),
        "-i\n-oep\n-f\nme@example.org\n--\nyou@example.com\nhidden@xn--bcher-kva.example\n"
    );
    let mut body = Message::from(mail).prepare().await.unwrap().into_body();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await {
        bytes.extend_from_slice(chunk.unwrap().bytes());
    }
    assert_eq!(receipt.bytes, bytes.len() as u64);
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(script.read("message"), text.replace("\r\n", "\n"));
}

#[tokio::test]
async fn sendmail_takes_no_address_for_an_option() {
    let script = Script::new(KEEP);
    let to = [
        "-oQ/tmp@example.com",
        "-t@example.com",
        "\"a,b -v\"@example.com",
    ]
    .map(|to| Address::new(to).unwrap());
    let from = Address::new("-Cfile@example.org").unwrap();
    for (from, sender) in [(Some(from), "-Cfile@example.org"), (None, "<>")] {
        let envelope = Envelope::new(from, to.clone()).unwrap();
        let message = Message::raw("Subject: Hello\n\n").envelope(envelope);
        let _ = script.mailer().arg("--mine").send(message).await.unwrap();
        assert_eq!(
            script.read("arguments"),
            format!(
                "--mine\n-i\n-oep\n-f\n{sender}\n--\n-oQ/tmp@example.com\n-t@example.com\n\
                 \"a,b -v\"@example.com\n"
            )
        );
    }
}

#[tokio::test]
async fn sendmail_streams() {
    let script = Script::new("wc -c >size\n");
    let receipt = script.mailer().send(large()).await.unwrap();
    let size: u64 = script.read("size").trim().parse().unwrap();
    assert_eq!(receipt.bytes, size + 100_002);
}

#[tokio::test]
async fn the_exit_status_of_sendmail_decides() {
    let closed = ErrorKind::Closed;
    for (status, kind, name) in [
        (1, ErrorKind::Refused, "status 1:"),
        (64, ErrorKind::Config, "EX_USAGE"),
        (65, ErrorKind::Refused, "EX_DATAERR"),
        (67, ErrorKind::Refused, "EX_NOUSER"),
        (69, ErrorKind::Refused, "EX_UNAVAILABLE"),
        (71, closed, "EX_OSERR"),
        (74, closed, "EX_IOERR"),
        (75, closed, "EX_TEMPFAIL"),
        (76, ErrorKind::Protocol, "EX_PROTOCOL"),
        (77, ErrorKind::Refused, "EX_NOPERM"),
        (78, ErrorKind::Config, "EX_CONFIG"),
        (127, ErrorKind::Config, "status 127:"),
    ] {
        let script = Script::new(&format!(
            "cat >/dev/null; echo 'why \x1b[1m' >&2; exit {status}"
        ));
        let error = script.fails(hello()).await;
        assert_eq!(
            (error.kind(), error.phase()),
            (kind, Phase::EndOfData),
            "{status}"
        );
        assert_eq!(error.is_transient(), kind == closed);
        assert!(!error.outcome_unknown() && error.hint().is_some());
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains("why \u{FFFD}[1m"),
            "{text}"
        );
        let recipient = &error.receipt().unwrap().recipients[0];
        assert_eq!(recipient.outcome, Outcome::NotTried);
        assert_eq!(recipient.is_transient(), kind == closed);
    }
}

#[tokio::test]
async fn a_sendmail_that_does_not_read_all_has_failed() {
    // Of the error, the exit status is what counts, not the broken pipe.
    let error = Script::new("echo 'no such user' >&2; exit 67")
        .fails(large())
        .await;
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Refused, Phase::Body)
    );
    assert!(error.to_string().contains("no such user"), "{error}");
    let error = Script::new("head -c 10 >/dev/null").fails(large()).await;
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.is_transient() && !error.outcome_unknown());
}

#[tokio::test]
async fn a_killed_sendmail_leaves_the_outcome_unknown() {
    let error = Script::new("cat >/dev/null; kill -9 $$")
        .fails(hello())
        .await;
    assert!(error.outcome_unknown());
    assert!(error.to_string().contains("signal 9"), "{error}");
    assert_eq!(
        error.receipt().unwrap().recipients[0].outcome,
        Outcome::Unknown
    );
    let error = Script::new("kill -9 $$").fails(large()).await;
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_sendmail_that_says_much_is_read() {
    let script = Script::new("yes why | head -c 1000000 >&2; cat >/dev/null; exit 69");
    let error = script.fails(large()).await;
    let length = error.message().len();
    assert!((4096..5300).contains(&length), "{length}");
    assert!(error.message().contains(": why; why; why"), "{error}");
}

/// As when an MTA delivers in the background.
#[tokio::test]
async fn a_sendmail_in_the_background_is_not_awaited() {
    let fifo = "mkfifo fifo; cat fifo >/dev/null & cat >/dev/null; exit";
    let script = Script::new(&format!("{fifo} 0"));
    let _ = script.mailer().send(hello()).await.unwrap();
    // It ends when the FIFO, which it may not have opened yet, is closed.
    let fifo = tokio::fs::OpenOptions::new()
        .write(true)
        .open(script.path("fifo"))
        .await;
    drop(fifo.unwrap());
}

#[tokio::test]
async fn a_slow_sendmail_is_killed() {
    let limit = Duration::from_millis(50);
    let script = Script::new("exec sleep 1000");
    let slow = script.mailer().timeout(limit);
    let error = slow.send(large()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::Body)
    );
    assert!(error.is_transient());
    let error = slow.send(hello()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.phase()),
        (ErrorKind::Timeout, Phase::EndOfData)
    );
    assert!(error.outcome_unknown());
}

/// Neither the program nor one that it runs takes a part of a message for a whole one.
#[tokio::test]
async fn a_dropped_sendmail_call_sends_nothing() {
    for read in [
        "cat >/dev/null; echo complete >&3",
        "sh -c 'cat >/dev/null; echo complete >&3'; true",
    ] {
        let script = Script::new(&format!("exec 3>fifo; echo started >&3\n{read}\n"));
        let fifo = script.path("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let events = pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
        let mut events = BufReader::new(events).lines();
        let (mut writer, reader) = tokio::io::duplex(1024);
        let to = Address::new("you@example.com").unwrap();
        let message = Message::raw_stream(reader).envelope(Envelope::new(None, [to]).unwrap());
        writer
            .write_all(b"Subject: a\r\n\r\na part\r\n")
            .await
            .unwrap();
        let mailer = script.mailer();
        {
            let mut sending = pin!(mailer.send(message));
            let mut started = pin!(events.next_line());
            while started.as_mut().now_or_never().is_none() {
                assert!(sending.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
        }
        // EOF: all processes are gone.
        assert_eq!(events.next_line().await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_sendmail_cannot_send_is_refused() {
    let script = Script::new(KEEP);
    let options = DeliveryOptions::new().require_tls(true);
    let binary = message(&["you@example.com"], "Subject: a\r\n\r\na\nb").line_ends(LineEnds::Keep);
    for message in [hello().delivery(options), binary] {
        let error = script.fails(message).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert!(!script.path("message").exists());
    let missing = Sendmail::new("/nonexistent/sendmail")
        .send(hello())
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Config);
    assert!(
        missing.to_string().contains("/nonexistent/sendmail"),
        "{missing}"
    );
}

/// The program gets the end of the message once its hand-over is permitted.
#[tokio::test]
async fn sendmail_awaits_the_handover() {
    let script = Script::new("cat >message\necho >queued\n");
    let queued = script.path("queued");
    let message = hello().on_handover(move |handover| {
        let is_queued = queued.exists();
        async move {
            assert_eq!(handover.recipients.len(), 1);
            match is_queued {
                true => Err("it is queued already"),
                false => Ok(()),
            }
        }
    });
    let receipt = script.mailer().send(message).await.unwrap();
    assert!(receipt.handed_over && script.path("queued").exists());

    for message in [hello(), large()] {
        let script = Script::new("cat >message\necho >queued\n");
        let message = message.on_handover(|_| async { Err("the disk is full") });
        let error = script.fails(message).await;
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Handover, Phase::Handover)
        );
        assert!(!error.receipt().unwrap().handed_over);
        assert!(!script.path("queued").exists());
    }
}
