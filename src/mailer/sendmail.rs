//! A [`Sendmail`] gives messages to a program.

use std::convert::Infallible;
use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{Either, select};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::{Instant, timeout};

use super::{Mailer, SendFuture, Submission};
use crate::connection::clock::FAR;
use crate::message::{Body, PreparedMessage};
use crate::proto::Content;
use crate::{
    Address, DeliveryOptions, Envelope, Error, ErrorKind, Message, Phase, Receipt, Result,
};

/// How much of the program's stderr is kept: its beginning.
const MAX_STDERR: usize = 4096;

/// The time for which the rest of stderr is read after the program has failed. A process that the
/// program left in the background may keep it open.
const STDERR_TIME: Duration = Duration::from_secs(1);

/// A [`Mailer`] that gives each message to the `sendmail` program of this machine, which Postfix,
/// Exim, OpenSMTPD, Sendmail, msmtp and others install.
///
/// The program is run for each message as `/usr/sbin/sendmail -i -oep -f SENDER -- RECIPIENT…`,
/// without a shell. The recipients are those of the envelope; the headers are not searched for any
/// (`-t`), and a Bcc header is not given to the program. The null reverse-path is `<>`. An address
/// is never taken for an option, whatever it begins with. Lines end with LF, as these programs
/// expect, and a line with only a dot does not end the message (`-i`). Errors are printed (`-oep`):
/// Exim would mail them to the sender instead. The message is streamed, in constant memory.
///
/// Exit status 0 means that the MTA has queued the message for all recipients: the receipt says
/// that each was accepted. The MTA reports later failures by a bounce, to the reverse-path.
/// [`Receipt::queue_id`](crate::Receipt::queue_id) is `None`, as the program prints none.
/// [`Receipt::server`](crate::Receipt::server) is the path of the program.
///
/// Needs the feature `sendmail`, and Unix.
///
/// ```no_run
/// # async fn example() -> envoi::Result<()> {
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::mailer::Sendmail;
///
/// let mail = MessageBuilder::new()
///     .from("cron@example.org")
///     .to("root@example.org")
///     .subject("Backup")
///     .text_body("Done.");
/// Sendmail::default().send(mail).await?;
///
/// // Another program with the same interface, with options of its own:
/// let sendmail = Sendmail::new("/usr/bin/msmtp").arg("--account=alerts");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sendmail {
    program: PathBuf,
    arguments: Vec<OsString>,
    timeout: Duration,
}

impl Default for Sendmail {
    /// Uses `/usr/sbin/sendmail`.
    fn default() -> Self {
        Sendmail::new("/usr/sbin/sendmail")
    }
}

impl Sendmail {
    /// Creates a mailer that runs another program with the same interface. A name without a slash
    /// is looked up in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Sendmail {
            program: program.into(),
            arguments: Vec::new(),
            timeout: Duration::from_secs(600),
        }
    }

    /// Adds an argument, which comes before `-i`. Never take it from the author of a message.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets the maximum time in which the program takes no byte of the message, and that from the
    /// end of the message to its exit; 10 minutes by default.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The program.
    pub fn get_program(&self) -> &Path {
        &self.program
    }

    /// The additional arguments.
    pub fn get_args(&self) -> &[OsString] {
        &self.arguments
    }

    /// The time-out.
    pub fn get_timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives a message to the program.
    ///
    /// # Errors
    ///
    /// The text has what the program wrote to stderr: its first 4 KiB. The exit status says little
    /// with some programs: Exim's is 1 whatever was wrong, and Postfix's 75, also for an option
    /// that it does not know.
    ///
    /// | Failure | [`ErrorKind`] | Transient |
    /// |---|---|---|
    /// | the program cannot be started | `Config` | no |
    /// | `EX_USAGE` (64), `EX_OSFILE` (72), `EX_CONFIG` (78); 126, 127 | `Config` | no |
    /// | `EX_OSERR` (71), `EX_IOERR` (74), `EX_TEMPFAIL` (75) | `Closed` | yes |
    /// | `EX_PROTOCOL` (76) | `Protocol` | no |
    /// | any other exit status | `Refused` | no |
    /// | a signal, or an exit with success, before it had taken the message | `Closed` | yes |
    /// | a signal after that | `Closed` | [unknown](Error::outcome_unknown) |
    /// | the [time-out](Self::timeout) before the end of the message | `Timeout` | yes |
    /// | the time-out after it | `Timeout` | unknown |
    /// | an error of the callback of [`Message::on_handover`] | `Handover` | no |
    /// | [delivery options](Message::delivery), a binary message ([`LineEnds::Keep`]) | `Unsupported` | no |
    ///
    /// [`LineEnds::Keep`]: crate::LineEnds::Keep
    ///
    /// A message that fits into the pipe, 64 KiB as a rule, may be taken before the program runs. If
    /// it then exits with success and has not read it, as `/bin/true` does, the message counts as
    /// accepted.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it kills the program and all processes that it has
    /// started, before they can take the end of the pipe for the end of the message. The message
    /// was not sent, unless all of it had been written: then it may be queued.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let started = Instant::now();
        let message = message.into().prepare().await?;
        let is_binary = message.content() == Content::Binary;
        let PreparedMessage {
            envelope,
            delivery,
            mut body,
            ..
        } = message;
        let submission = Submission {
            server: self.program.to_string_lossy().into_owned(),
            envelope: &envelope,
            started,
        };
        let sending = async {
            if delivery != DeliveryOptions::default() {
                return Err(unsupported("takes no delivery options"));
            }
            if is_binary {
                return Err(unsupported("takes lines, and the message is binary"));
            }
            self.give(self.start(&envelope)?, &envelope, &mut body)
                .await
        };
        match sending.await {
            Ok(bytes) => Ok(submission.accepted("250 2.0.0 Ok", bytes)),
            Err(error) => Err(submission.failed(error, body.is_handed_over())),
        }
    }

    fn start(&self, envelope: &Envelope) -> Result<Running> {
        // Domains as A-labels where that is enough for ASCII: not every program knows others.
        let text = |address: &Address| match address.to_ascii() {
            Some(ascii) => ascii.as_str().to_owned(),
            None => address.as_str().to_owned(),
        };
        let sender = envelope.reverse_path().map_or("<>".to_owned(), text);
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .args(["-i", "-oep", "-f", &sender, "--"])
            .args(envelope.recipients().iter().map(text))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own, so that the processes which it starts can be killed with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| self.cannot_start(error))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        Ok(Running {
            stderr: Stderr {
                pipe: stderr,
                text: Vec::new(),
            },
            child,
            stdin,
        })
    }

    /// Gives the message to the program, and returns its size.
    async fn give(
        &self,
        mut running: Running,
        envelope: &Envelope,
        body: &mut Body,
    ) -> Result<u64> {
        let Running {
            child,
            stdin,
            stderr,
        } = &mut running;
        let limit = self.timeout.min(FAR);
        let pipe = stdin.as_mut().expect("it was piped");
        let written = stderr.read_while(write(pipe, body, limit)).await;
        let exit = match written {
            Ok(bytes) => {
                let handover = body.hand_over(envelope.recipients(), bytes);
                stderr.read_while(handover).await?;
                // The end of the message: from here on, it may be queued.
                *stdin = None;
                body.report_progress(bytes, true);
                timeout(limit, stderr.read_while(child.wait())).await
            }
            // The program has closed its end: its exit status says why.
            Err(WriteError::Pipe) => timeout(limit, stderr.read_while(child.wait())).await,
            Err(WriteError::TimedOut) => return Err(self.timed_out(false)),
            Err(WriteError::Source(error)) => return Err(error),
        };
        let Ok(status) = exit else {
            return Err(self.timed_out(written.is_ok()));
        };
        let status = status.map_err(|error| self.cannot_start(error))?;
        match written {
            Ok(bytes) if status.success() => Ok(bytes),
            written => {
                stderr.read_rest().await;
                Err(self.failed(status, written.is_ok(), &stderr.text))
            }
        }
    }

    fn cannot_start(&self, error: io::Error) -> Error {
        let message = format!("{} cannot be run: {error}", self.program.display());
        Error::new(ErrorKind::Config, Phase::Setup, message)
            .with_hint(
                "Install an MTA that provides this program, give the path of the right one, or \
                 send to a server by SMTP (Client).",
            )
            .with_source(error)
    }

    fn timed_out(&self, was_complete: bool) -> Error {
        let (phase, what) = match was_complete {
            true => (
                Phase::EndOfData,
                "did not exit after the end of the message",
            ),
            false => (Phase::Body, "took no byte of the message"),
        };
        let (program, limit) = (self.program.display(), self.timeout);
        let message = format!("{program} {what} within {limit:?}, and was killed");
        Error::new(ErrorKind::Timeout, phase, message)
            .with_hint("See the log of the MTA; a longer time can be allowed (Sendmail::timeout).")
            .with_outcome_unknown(was_complete)
    }

    /// The error of a program that exited with `status`.
    fn failed(&self, status: ExitStatus, was_complete: bool, stderr: &[u8]) -> Error {
        let (kind, hint) = match status.code() {
            Some(64) => (ErrorKind::Config, "Its options are not those of sendmail."),
            Some(72 | 78) => (ErrorKind::Config, "Mend the configuration of the MTA."),
            Some(126 | 127) => (ErrorKind::Config, "A program that it runs was not found."),
            Some(0 | 71 | 74 | 75) | None => (
                ErrorKind::Closed,
                "It can be tried again. See the log of the MTA.",
            ),
            Some(76) => (ErrorKind::Protocol, "See the log of the MTA."),
            Some(_) => (
                ErrorKind::Refused,
                "Its text and the log of the MTA say why.",
            ),
        };
        let program = self.program.display();
        let mut message = match (status.code(), status.signal()) {
            (Some(0), _) => format!("{program} exited before it had read the whole message"),
            (Some(code), _) => match sysexit(code) {
                Some(name) => format!("{program} failed with exit status {code} ({name})"),
                None => format!("{program} failed with exit status {code}"),
            },
            (None, Some(signal)) => format!("{program} was killed by signal {signal}"),
            (None, None) => format!("{program} ended with {status}"),
        };
        let stderr = String::from_utf8_lossy(stderr);
        let lines: Vec<&str> = stderr.lines().map(str::trim).collect();
        let stderr = lines.join("; ");
        if !stderr.is_empty() {
            message = format!("{message}: {stderr}");
        }
        let phase = match was_complete {
            true => Phase::EndOfData,
            false => Phase::Body,
        };
        Error::new(kind, phase, message)
            .with_hint(hint)
            .with_outcome_unknown(was_complete && status.code().is_none())
    }
}

impl Mailer for Sendmail {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        Box::pin(Sendmail::send(self, message))
    }
}

/// The program while it runs. Dropped before its end, it is killed before its stdin is closed, or
/// it would take the message for complete.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stderr: Stderr,
}

impl Drop for Running {
    fn drop(&mut self) {
        // `None` after it was waited for.
        let id = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // It may have exited already.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// Reads stderr, so that the program does not wait for it, and keeps the beginning.
struct Stderr {
    /// `None` once it has ended.
    pipe: Option<ChildStderr>,
    text: Vec<u8>,
}

impl Stderr {
    /// Awaits a future, and reads meanwhile.
    async fn read_while<F: Future>(&mut self, future: F) -> F::Output {
        let reading = async {
            self.read_to_end().await;
            pending::<Infallible>().await
        };
        match select(pin!(future), pin!(reading)).await {
            Either::Left((output, _)) => output,
            Either::Right((never, _)) => match never {},
        }
    }

    /// Reads to the end, for a limited time.
    async fn read_rest(&mut self) {
        // What was read by then is enough.
        let _: Result<(), _> = timeout(STDERR_TIME, self.read_to_end()).await;
    }

    async fn read_to_end(&mut self) {
        let mut buffer = [0; 1024];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => self.pipe = None,
                Ok(length) => {
                    let kept = length.min(MAX_STDERR - self.text.len());
                    self.text.extend_from_slice(&buffer[..kept]);
                }
            }
        }
    }
}

enum WriteError {
    /// The program has closed its stdin, as at its exit.
    Pipe,
    TimedOut,
    /// The message cannot be read.
    Source(Error),
}

/// Writes the message with LF as line end, and returns its size with CRLF.
async fn write(pipe: &mut ChildStdin, body: &mut Body, limit: Duration) -> Result<u64, WriteError> {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(WriteError::Source)?;
        bytes += chunk.bytes().len() as u64;
        lines.clear();
        // Every CR is a part of CRLF.
        chunk
            .bytes()
            .split(|byte| *byte == b'\r')
            .for_each(|part| lines.extend_from_slice(part));
        let mut left = &lines[..];
        while !left.is_empty() {
            match timeout(limit, pipe.write(left)).await {
                Ok(Ok(0) | Err(_)) => return Err(WriteError::Pipe),
                Ok(Ok(written)) => left = &left[written..],
                Err(_) => return Err(WriteError::TimedOut),
            }
        }
        body.report_progress(bytes, false);
    }
    Ok(bytes)
}

fn unsupported(what: &str) -> Error {
    let message = format!("the sendmail program {what}");
    Error::new(ErrorKind::Unsupported, Phase::Setup, message)
        .with_hint("Send the message to a server by SMTP (Client), or without them.")
}

/// The name of an exit status in sysexits.h.
fn sysexit(status: i32) -> Option<&'static str> {
    Some(match status {
        64 => "EX_USAGE",
        65 => "EX_DATAERR",
        66 => "EX_NOINPUT",
        67 => "EX_NOUSER",
        68 => "EX_NOHOST",
        69 => "EX_UNAVAILABLE",
        70 => "EX_SOFTWARE",
        71 => "EX_OSERR",
        72 => "EX_OSFILE",
        73 => "EX_CANTCREAT",
        74 => "EX_IOERR",
        75 => "EX_TEMPFAIL",
        76 => "EX_PROTOCOL",
        77 => "EX_NOPERM",
        78 => "EX_CONFIG",
        _ => return None,
    })
}
