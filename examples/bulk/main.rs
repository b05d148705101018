//! Sends a template to each recipient in a CSV file, once. `bulk --help` lists the options; the
//! exit code is the result.
//!
//!     cargo run --example bulk -- --url smtp://alice@mail.example.org --password-file secret.txt \
//!         --recipients subscribers.csv --template news.eml --journal news.journal
//!
//! A journal records each message before it is handed over and when it is answered. Killed at any
//! moment and run again, the program sends no message twice; what may have been delivered is listed
//! as in doubt. Interrupted (Ctrl-C, SIGTERM), it waits for the messages in flight.

mod options;
#[path = "../password/mod.rs"]
mod password;
mod recipients;
mod signals;
mod template;
#[path = "../trust/mod.rs"]
mod trust;

use std::collections::HashSet;
use std::error::Error as _;
use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Parser as _;
use envoi::tls::Trust;
use envoi::{
    Address, BulkConfig, Client, Endpoint, Envelope, Error, ErrorKind, Journal, JournalError,
    JournalState, Message, Pool,
};
use futures::stream::{self, StreamExt as _};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::Notify;
use tokio::time;

use options::Options;
use recipients::Recipients;
use template::Template;

/// The messages in flight over each connection, which are in doubt if the program is killed.
const WINDOW: usize = 8;

/// How long the answers to messages in flight are waited for after the journal has failed.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Why the program ends before it has sent anything, or in the middle.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The request is bad.
    fn request(message: impl Into<String>) -> Self {
        Failure::new(64, message)
    }

    fn new(code: u8, message: impl Into<String>) -> Self {
        let message = message.into();
        Failure { code, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::new(error.exit_code(), error.to_string())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let code = match error {
            JournalError::OtherFingerprint(_) => 65,
            _ => 74,
        };
        Failure::new(code, error.to_string())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let result = match Options::try_parse() {
        Ok(options) => run(&options).await,
        // clap returns --help and --version as errors.
        Err(asked) if asked.exit_code() == 0 => asked.exit(),
        Err(error) => Err(options::explain(&error)),
    };
    let code = result.unwrap_or_else(|failure| {
        print_error(&failure.message);
        failure.code
    });
    std::process::exit(code.into());
}

/// Writes a line to standard error. A closed standard error does not change what is sent.
fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line of the CSV file whose message is sent in this run.
struct Line {
    number: u64,
    key: String,
    address: Address,
    /// The index of its fields.
    row: usize,
}

/// The outcomes of the lines.
#[derive(Default)]
struct Counts {
    sent: usize,
    refused: usize,
    unknown: usize,
    skipped: usize,
    waiting: usize,
}

async fn run(options: &Options) -> Result<u8, Failure> {
    let endpoint = endpoint(options)?;
    let trusted = trust::check(endpoint.get_tls().get_trust());
    let pool = pool(options, endpoint)?;
    let recipients = Recipients::read(&options.recipients)?;
    let template = std::fs::read(&options.template)
        .map_err(|error| Failure::new(66, format!("--template cannot be read: {error}")))?;
    let template = Template::parse(&template, &recipients.columns)?;
    let sender = match &options.from {
        Some(address) => {
            Address::new(address).map_err(|error| Failure::from(Error::from(error)))?
        }
        None => template.sender()?,
    };
    let mailing = Mailing {
        recipients,
        template,
        sender,
    };
    mailing.check().await?;
    let journal = Journal::open_for(&options.journal, mailing.template.bytes()).await?;
    let lines = lines(&mailing.recipients, &journal, options.resend_unknown);
    let mut end = match trusted {
        Ok(()) => send(&pool, &journal, &mailing, &lines).await,
        Err(error) => {
            print_error(&error.to_string());
            End {
                failure: Some(error.exit_code()),
                ..End::default()
            }
        }
    };
    // What is known is recorded, whatever has happened.
    if let Err(error) = journal.sync().await {
        end.journal_failure.get_or_insert(error.into());
    }
    pool.close().await;
    let code = report(options, &journal, &mailing.recipients, &end);
    end.journal_failure.map_or(Ok(code), Err)
}

/// What is sent, and to whom.
struct Mailing {
    recipients: Recipients,
    template: Template,
    sender: Address,
}

impl Mailing {
    /// Makes the message for a row.
    fn message(&self, row: usize) -> Result<Message<'static>, String> {
        let address = &self.recipients.addresses[row];
        let fields = &self.recipients.rows[row];
        let key = recipients::key(address);
        let rendered = self.template.render(fields, &key, &self.sender)?;
        let envelope = Envelope::new(self.sender.clone(), [address.clone()]);
        let envelope = envelope.expect("an envelope of addresses is valid");
        Ok(Message::raw(rendered).envelope(envelope))
    }

    /// Checks all messages before anything is sent.
    async fn check(&self) -> Result<(), Failure> {
        for (row, line) in self.recipients.lines.iter().enumerate() {
            let at_line =
                |cause: String| Failure::request(format!("line {line} of the recipients: {cause}"));
            let message = self.message(row).map_err(at_line)?;
            let prepared = message.prepare().await;
            prepared.map_err(|error| at_line(error.to_string()))?;
        }
        Ok(())
    }
}

fn endpoint(options: &Options) -> Result<Endpoint, Failure> {
    let mut endpoint = Endpoint::from_url(&options.url)?.send_window(WINDOW);
    if !options.trust.is_empty() {
        endpoint = endpoint.trust(options.trust.iter().fold(Trust::empty(), Trust::path));
    }
    if let Some(path) = &options.password_file {
        endpoint = endpoint.password(password(path)?);
    }
    Ok(endpoint)
}

fn pool(options: &Options, endpoint: Endpoint) -> Result<Pool, Failure> {
    let mut client = Client::new(endpoint);
    if let Some(rate) = &options.rate {
        client = client.rate_limit(options::rate(rate)?);
    }
    Ok(client.pool(options::connections(&options.connections)?))
}

fn password(path: &Path) -> Result<envoi::Secret, Failure> {
    let until = Instant::now() + Duration::from_secs(5);
    let failure = |error| Failure::new(66, password::unreadable("--password-file", &error));
    if password::is_stdin(path) {
        return Err(Failure::request("--password-file needs a file"));
    }
    password::read(path, until).map_err(failure)
}

/// The lines to send.
fn lines(recipients: &Recipients, journal: &Journal, resend: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut keys = HashSet::new();
    let mut repeated = Vec::new();
    for (row, address) in recipients.addresses.iter().enumerate() {
        let key = recipients::key(address);
        // A mailbox gets one message. A line that repeats it has the state that the first one
        // reaches.
        if !keys.insert(key.clone()) {
            repeated.push(recipients.lines[row]);
            continue;
        }
        match journal.state(&key) {
            Some(JournalState::Sent | JournalState::Refused) => {}
            Some(JournalState::InDoubt) if !resend => {}
            _ => lines.push(Line {
                number: recipients.lines[row],
                key,
                address: address.clone(),
                row,
            }),
        }
    }
    if let Some(first) = repeated.first() {
        let count = repeated.len();
        print_error(&format!(
            "each mailbox gets one message. Lines that repeat a mailbox have its outcome: {count}, \
                the first is line {first}"
        ));
    }
    lines
}

/// How sending has ended.
#[derive(Default)]
struct End {
    /// The keys of the messages that have an outcome of this run.
    keys: HashSet<String>,
    /// The exit code of the last failure that concerns all messages.
    failure: Option<u8>,
    /// Why the journal could not record everything.
    journal_failure: Option<Failure>,
}

async fn send(pool: &Pool, journal: &Journal, mailing: &Mailing, lines: &[Line]) -> End {
    let bar = bar(lines.len());
    let stop = Notify::new();
    let messages = stream::iter(lines).map(|line| {
        let message = mailing.message(line.row);
        let message = message.expect("it was made before without an error");
        let (journal, key) = (journal.clone(), line.key.clone());
        message.on_handover(move |_| {
            let (journal, key) = (journal.clone(), key.clone());
            async move { journal.hand_over(&key).await }
        })
    });
    let messages = messages.take_until(stop.notified());
    let mut config = BulkConfig::default();
    config.ordered = false;
    let mut outcomes = pin!(pool.send_all_with(messages, config));
    let mut signals = pin!(signals::stream());
    let (mut end, mut told) = (End::default(), HashSet::new());
    let (mut is_interrupted, mut until) = (false, None);
    loop {
        let outcome = tokio::select! {
            outcome = outcomes.next() => outcome,
            Some(()) = signals.next() => {
                // What is in flight is in doubt at the second signal.
                if is_interrupted {
                    break;
                }
                is_interrupted = true;
                stop.notify_one();
                bar.suspend(|| print_error(
                    "Interrupted: waiting for the messages in flight. Interrupt again to end now."
                ));
                continue;
            }
            () = passed(until) => break,
        };
        let Some((number, outcome)) = outcome else {
            break;
        };
        let line = &lines[number];
        let recorded = journal.record(&line.key, &outcome);
        let state = journal.state(&line.key).unwrap_or(JournalState::NotSent);
        end.keys.insert(line.key.clone());
        bar.inc(1);
        let failure = match (recorded, &outcome) {
            // The error of the callback is that of the journal.
            (_, Err(error)) if error.kind() == ErrorKind::Handover => Some(
                error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string),
            ),
            (Err(error), _) => Some(error.to_string()),
            _ => None,
        };
        if let Some(failure) = failure {
            // Nothing is sent that cannot be recorded. Messages in flight may still be answered.
            stop.notify_one();
            until.get_or_insert_with(|| time::Instant::now() + LAST_ANSWERS);
            end.journal_failure
                .get_or_insert_with(|| Failure::new(74, failure));
            continue;
        }
        if let Err(error) = &outcome {
            let is_of_server = error.kind() != ErrorKind::Refused || error.is_permanent();
            if state == JournalState::NotSent && is_of_server {
                end.failure = Some(error.exit_code());
            }
            // A failure of the server is told once, and not for each message.
            let text = error.to_string();
            if state != JournalState::NotSent || !is_of_server || told.insert(text.clone()) {
                let text = format!("line {}: {}: {text}", line.number, line.address);
                bar.suspend(|| print_error(&text));
            }
        }
    }
    bar.finish_and_clear();
    end
}

/// Waits until this time, if there is one.
async fn passed(time: Option<time::Instant>) {
    match time {
        Some(time) => time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Draws a progress bar on standard error, if that is a terminal.
fn bar(messages: usize) -> ProgressBar {
    let length = Some(messages as u64);
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{pos} of {len} [{bar:30}] {per_sec}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Counts and prints the outcomes of the lines, and returns the exit code, which is about the
/// whole journal.
fn report(options: &Options, journal: &Journal, recipients: &Recipients, end: &End) -> u8 {
    let mut counts = Counts::default();
    for address in &recipients.addresses {
        let key = recipients::key(address);
        let is_new = end.keys.contains(&key);
        match journal.state(&key) {
            Some(state) if is_in_doubt(state) => counts.unknown += 1,
            Some(JournalState::Sent) if is_new => counts.sent += 1,
            Some(JournalState::Refused) if is_new => counts.refused += 1,
            Some(JournalState::Sent | JournalState::Refused) => counts.skipped += 1,
            _ => counts.waiting += 1,
        }
    }
    let entries = journal.to_vec();
    let in_doubt = || entries.iter().filter(|entry| is_in_doubt(entry.state));
    let mut list = String::new();
    for entry in in_doubt() {
        let key = String::from_utf8_lossy(&entry.key);
        let note = match entry.state {
            JournalState::HandingOver => "it was in flight at the end",
            _ => &entry.note,
        };
        list += &format!("in doubt: {key}: {note}\n");
    }
    let Counts {
        sent,
        refused,
        unknown,
        skipped,
        waiting,
    } = counts;
    let text = match options.json {
        true => {
            let _ = std::io::stderr().write_all(list.as_bytes());
            let object = serde_json::json!({"sent": sent, "refused": refused, "unknown": unknown,
                "skipped": skipped, "waiting": waiting});
            format!("{object}\n")
        }
        false => format!(
            "{list}{sent} sent, {refused} refused, {unknown} in doubt, {skipped} skipped, \
                {waiting} waiting\n"
        ),
    };
    // A closed standard error does not change what was sent.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let has = |state| entries.iter().any(|entry| entry.state == state);
    if in_doubt().next().is_some() {
        79
    } else if has(JournalState::Refused) {
        69
    } else if waiting > 0 || has(JournalState::NotSent) {
        end.failure.unwrap_or(75)
    } else {
        0
    }
}

/// Whether a message may have been delivered at the end of this process.
fn is_in_doubt(state: JournalState) -> bool {
    matches!(state, JournalState::InDoubt | JournalState::HandingOver)
}
