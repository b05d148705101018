//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;

/// Mail that waits in a database, sent by any number of workers.
///
/// Exit codes: 0; 64 for a bad request, 65 for a key of another message, 66 for unreadable input,
/// 69 if a job failed, 74 if the store cannot be used, 77 for a refused login, 78 for the
/// configuration, 79 if the outcome of a job is unknown.
#[derive(Parser)]
#[command(name = "outbox", version)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Adds a message, and prints the id of its job
    Add(Add),
    /// Sends the messages that wait
    Run(Box<Run>),
    /// Counts the jobs in each state
    Status(Status),
    /// Lists the jobs of a state
    List(List),
    /// Decides about a job whose outcome is unknown
    Resolve(Resolve),
    /// Makes a failed job wait again
    Retry(Retry),
    /// Removes sent and failed jobs
    Purge(Purge),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct StoreOption {
    /// The store: sqlite:FILE, postgres://user:password@host/database, redis://host,
    /// rediss://host (with TLS)
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The environment variable that holds the URL of the store
    #[arg(long, value_name = "VARIABLE")]
    store_env: Option<String>,
}

impl StoreOption {
    pub fn url(&self) -> Result<String, Failure> {
        match (&self.store, &self.store_env) {
            (Some(url), _) => Ok(url.clone()),
            (None, Some(variable)) => std::env::var(variable).map_err(|_| {
                // The name may be the URL itself by mistake.
                Failure::request("the environment variable of --store-env is not set, or not UTF-8")
            }),
            (None, None) => Err(Failure::request("--store is missing")),
        }
    }
}

#[derive(Args)]
pub struct Add {
    #[command(flatten)]
    pub store: StoreOption,
    /// The sender; '' or '<>' for a notification that must not bounce
    #[arg(long, value_name = "ADDRESS")]
    pub from: String,
    /// Recipients
    #[arg(long, value_name = "ADDRESS", num_args = 1.., required = true)]
    pub to: Vec<String>,
    /// A raw message with its headers; - is standard input
    #[arg(long, value_name = "FILE")]
    pub message: PathBuf,
    /// Adds the message once, however often it is added with this key
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// The time before which it is not sent, such as 2027-01-31T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    pub store: StoreOption,
    /// The server: smtp://user@host:587 (STARTTLS), smtps://user@host:465, lmtp://host:24
    #[arg(long)]
    pub url: String,
    /// Certificates to trust in place of the system's: files or folders
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub trust: Vec<PathBuf>,
    /// The file with the password of the login; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "password_env")]
    pub password_file: Option<PathBuf>,
    /// The environment variable with the password of the login
    #[arg(long, value_name = "VARIABLE")]
    pub password_env: Option<String>,
    /// The maximum number of connections, and of messages that are sent at one time
    #[arg(long, value_name = "NUMBER", default_value = "4")]
    connections: String,
    /// The seconds after which the jobs of a worker that has stopped are taken from it, at least 1
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    lease: String,
    /// The number of attempts after the first, at most 65535
    #[arg(long, value_name = "NUMBER", default_value = "20")]
    retries: String,
    /// The seconds before the second attempt; each further wait is twice as long, at most an hour
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    backoff: String,
    /// The seconds after which a job that still waits has failed
    #[arg(long, value_name = "SECONDS", default_value = "432000")]
    max_age: String,
    /// The time limit of connecting and of each reply, in place of the URL's
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<String>,
    /// Serves /health, /metrics and a page of failed and unknown jobs
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Ends when no job is due, being retried or running
    #[arg(long)]
    pub until_empty: bool,
}

/// The values of [`Run`].
#[derive(Clone, Debug)]
pub struct Settings {
    pub connections: u16,
    pub lease: Duration,
    pub retries: u32,
    pub backoff: Duration,
    pub max_age: Duration,
    pub timeout: Option<Duration>,
    pub until_empty: bool,
}

impl Run {
    pub fn settings(&self) -> Result<Settings, Failure> {
        let number = |text: &str, option: &str| {
            let number = text.parse::<u16>().ok();
            number.ok_or_else(|| Failure::request(format!("{option} takes a number up to 65535")))
        };
        let connections = number(&self.connections, "--connections")?;
        if connections == 0 {
            return Err(Failure::request("--connections takes a number from 1"));
        }
        let lease = seconds(&self.lease, "--lease")?;
        if lease < Duration::from_secs(1) {
            return Err(Failure::request("--lease takes at least 1 second"));
        }
        Ok(Settings {
            connections,
            lease,
            retries: number(&self.retries, "--retries")?.into(),
            backoff: seconds(&self.backoff, "--backoff")?,
            max_age: seconds(&self.max_age, "--max-age")?,
            timeout: self
                .timeout
                .as_ref()
                .map(|text| seconds(text, "--timeout"))
                .transpose()?,
            until_empty: self.until_empty,
        })
    }
}

#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    pub store: StoreOption,
    /// Prints one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    pub store: StoreOption,
    /// The state: waiting, running, sent, failed or unknown
    #[arg(long, value_name = "STATE")]
    pub state: String,
    /// Prints one JSON array
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Resolve {
    #[command(flatten)]
    pub store: StoreOption,
    /// The id of the job
    pub id: String,
    /// What to do: sent, if the recipients have the message; again, to send it again
    #[arg(long = "as", value_name = "sent|again")]
    pub outcome: String,
}

#[derive(Args)]
pub struct Retry {
    #[command(flatten)]
    pub store: StoreOption,
    /// The id of the job
    pub id: String,
}

#[derive(Args)]
pub struct Purge {
    #[command(flatten)]
    pub store: StoreOption,
    /// The age of the jobs, in days since they ended
    #[arg(long, value_name = "DAYS")]
    pub older_than: String,
}

impl Purge {
    pub fn age(&self) -> Result<Duration, Failure> {
        // About a hundred years.
        let days = self.older_than.parse::<f64>().ok();
        let days = days.filter(|days| (0.0..36_500.0).contains(days));
        days.map(|days| Duration::from_secs_f64(days * 86_400.0))
            .ok_or_else(|| Failure::request("--older-than takes a number of days"))
    }
}

fn seconds(text: &str, option: &str) -> Result<Duration, Failure> {
    // About thirty years.
    let seconds = text.parse::<f64>().ok();
    let seconds = seconds.filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Failure::request(format!("{option} takes a number of seconds"))
            .with_hint("Give one above 0, such as 20 or 0.5.")
    })
}

/// Describes an error of clap without the user's text, which may be a URL with a password.
pub fn explain(error: &clap::Error, args: &[OsString]) -> Failure {
    // Names of options, except for `UnknownArgument`, where it is the user's text.
    let names = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => name.clone(),
        Some(ContextValue::Strings(names)) => names.join(", "),
        _ => "an option".into(),
    };
    let option = || names(ContextKind::InvalidArg);
    let failure = Failure::request(match error.kind() {
        ErrorKind::UnknownArgument => {
            let unknown = option();
            let position = args
                .iter()
                .skip(1)
                .position(|arg| arg.to_string_lossy().starts_with(&unknown));
            match position {
                Some(index) => format!("argument {} is not known here", index + 1),
                None => "there is an argument that is not known here".into(),
            }
        }
        ErrorKind::InvalidSubcommand => "the first argument is not a command".into(),
        ErrorKind::MissingRequiredArgument => format!("this is missing: {}", option()),
        ErrorKind::ArgumentConflict => format!(
            "{} does not go with {}",
            option(),
            names(ContextKind::PriorArg)
        ),
        ErrorKind::TooManyValues => format!("{} takes no value", option()),
        ErrorKind::InvalidValue | ErrorKind::TooFewValues => format!("{} needs a value", option()),
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".into(),
        kind => kind
            .as_str()
            .unwrap_or("the command line is not understood")
            .to_lowercase(),
    });
    failure.with_hint("All commands and options are in --help.")
}
