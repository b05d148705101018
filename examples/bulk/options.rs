//! The options of the command line and their errors. No message repeats an argument, as it may
//! contain a password.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use envoi::Rate;

use crate::Failure;

/// Sends a template to each recipient in a CSV file, once.
///
/// Run again with the same journal, it sends what was not sent. At Ctrl-C or SIGTERM it waits for
/// the messages in flight; at a second one it ends, and these are in doubt. The exit code is 0 if
/// every message was accepted; 64 for a bad request, 65 if the journal belongs to another template,
/// 66 for an input file that cannot be read, 69 if a message was refused permanently, 74 for the
/// journal, 75 if messages are left to be sent, 79 if messages are in doubt.
#[derive(Parser)]
#[command(name = "bulk", version)]
pub struct Options {
    /// The server: smtp://user:password@host:587 (STARTTLS), smtps://user:password@host:465,
    /// smtp://host:25?tls=none
    #[arg(long)]
    pub url: String,
    /// A CSV file in UTF-8 with a header line; the column `email` is the recipient. Each mailbox
    /// gets one message
    #[arg(long, value_name = "FILE")]
    pub recipients: PathBuf,
    /// A raw message; {{column}} is replaced in its headers and texts
    #[arg(long, value_name = "FILE")]
    pub template: PathBuf,
    /// The file that records what was sent; it is created if it does not exist
    #[arg(long, value_name = "FILE")]
    pub journal: PathBuf,
    /// The sender of the envelope; by default the Sender or From of the template
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Trust the certificates of these files or folders, and no others
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub trust: Vec<PathBuf>,
    /// The maximum number of connections
    #[arg(long, value_name = "N", default_value = "4")]
    pub connections: String,
    /// The maximum number of messages: N/s or N/min
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Send again what is in doubt, although it may have been delivered
    #[arg(long)]
    pub resend_unknown: bool,
    /// A file with the password of the user in the URL
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print the numbers as a JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

/// Parses the number of connections.
pub fn connections(text: &str) -> Result<u16, Failure> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Failure::request("--connections takes a number from 1 to 65535"))
}

/// Parses a rate: `N/s` or `N/min`.
pub fn rate(text: &str) -> Result<Rate, Failure> {
    let parsed = text.split_once('/').and_then(|(number, unit)| {
        let number = number.parse().ok().filter(|number| *number > 0)?;
        let window = match unit {
            "s" => 1,
            "min" => 60,
            _ => return None,
        };
        Some(Rate::new(number, Duration::from_secs(window)))
    });
    parsed.ok_or_else(|| Failure::request("--rate takes a rate such as 10/s or 300/min"))
}

/// Describes an error of clap without the user's text.
pub fn explain(error: &clap::Error) -> Failure {
    let option = match error.get(ContextKind::InvalidArg) {
        // The user's text.
        _ if error.kind() == ErrorKind::UnknownArgument => None,
        Some(ContextValue::String(name)) => Some(name.clone()),
        Some(ContextValue::Strings(names)) => Some(names.join(", ")),
        _ => None,
    };
    let option = option.unwrap_or_else(|| "an option".into());
    let message = match error.kind() {
        ErrorKind::UnknownArgument => "there is an option that bulk does not know".into(),
        ErrorKind::MissingRequiredArgument => format!("this is missing: {option}"),
        ErrorKind::ArgumentConflict => format!("{option} is given twice"),
        _ => format!("{option} has a value that is not valid"),
    };
    Failure::request(format!("{message}. All options are in --help."))
}
