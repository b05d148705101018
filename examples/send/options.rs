//! The options of the command line and their errors.
//!
//! All values are strings that envoi parses. No message repeats an argument, as it may contain a
//! password; clap's own messages do, and are not shown.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::password::is_stdin;
use crate::report::Failure;

/// Sends one message and reports the result.
///
/// The exit code is 0 if every recipient was accepted; 64 for a bad request, 66 for an input file
/// that cannot be read, 69 for a permanent refusal, 75 for a transient failure, 76 for TLS and
/// protocol violations, 77 for the login, 78 for the configuration, 79 if it is unknown whether the
/// message was delivered.
#[derive(Parser)]
#[command(name = "send", version)]
pub struct Options {
    /// The server: smtp://user:password@host:587 (STARTTLS), smtps://user:password@host:465,
    /// smtp://host:25?tls=none, lmtp://host:24, lmtp+unix:///run/lmtp.sock
    #[arg(long, required_unless_present = "mx")]
    pub url: Option<String>,
    /// Send to the servers of each recipient's domain, in place of --url
    #[arg(long)]
    pub mx: bool,
    /// With --mx: the resolver, in place of the system's: 192.0.2.53:53 or [2001:db8::53]:53; the
    /// port may be left out
    #[arg(long, value_name = "IP:PORT", requires = "mx")]
    pub resolver: Option<String>,
    /// With --mx: a file with the trust anchors of DNSSEC (DS or DNSKEY records), in place of the
    /// root's
    #[arg(long, value_name = "FILE", requires = "mx")]
    pub dnssec_anchor: Option<PathBuf>,
    /// With --mx: whether servers are verified by TLSA records (on by default)
    #[arg(long, value_name = "on|off", requires = "mx")]
    pub dane: Option<String>,
    /// With --mx: whether the domains' policies of MTA-STS apply (on by default)
    #[arg(long, value_name = "on|off", requires = "mx")]
    pub mta_sts: Option<String>,
    /// With --mx: a folder that keeps these policies; it is made if it is not there
    #[arg(long, value_name = "FOLDER", requires = "mx")]
    pub state: Option<PathBuf>,
    /// The sender; '' or '<>' for a notification that must not bounce, which has no From header
    #[arg(long, value_name = "ADDRESS", required_unless_present = "check")]
    pub from: Option<String>,
    /// Recipients
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    pub to: Vec<String>,
    /// Recipients in the Cc header
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    pub cc: Vec<String>,
    /// Recipients that are hidden from the others
    #[arg(long, value_name = "ADDRESS", num_args = 1..)]
    pub bcc: Vec<String>,

    /// The subject
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,
    /// The text
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    pub body: Option<String>,
    /// A file with the text, UTF-8; - is standard input
    #[arg(long, value_name = "FILE")]
    pub body_file: Option<PathBuf>,
    /// A file with the text as HTML, UTF-8, alone or beside the plain text
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Attachments of any size; - is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub attach: Vec<PathBuf>,
    /// A raw message with its headers; - is standard input
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["subject", "body", "body_file", "html", "attach"])]
    pub message: Option<PathBuf>,

    /// Trust the certificates of these files or folders, and no others
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub trust: Vec<PathBuf>,
    /// The password of a trust store (PKCS#12, JKS), and of the client certificate
    #[arg(long, value_name = "PASSWORD", conflicts_with = "trust_password_file")]
    pub trust_password: Option<String>,
    /// A file with that password, its first line
    #[arg(long, value_name = "FILE")]
    pub trust_password_file: Option<PathBuf>,
    /// Trust the system's store as well
    #[arg(long)]
    pub system_trust: bool,
    /// The client certificate: PEM, or a key store (PKCS#12, JKS, an Oracle wallet) that includes
    /// the key
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// The client name in EHLO; by default the address of this machine
    #[arg(long, value_name = "NAME")]
    pub helo: Option<String>,
    /// The SASL mechanism; by default the strongest that both sides support
    #[arg(long, value_name = "MECHANISM")]
    pub auth: Option<String>,
    /// A file with the password of the user in the URL; a line end at the end of the file is
    /// ignored
    #[arg(long, value_name = "FILE", conflicts_with = "password_env")]
    pub password_file: Option<PathBuf>,
    /// An environment variable with the password of the user in the URL
    #[arg(long, value_name = "VARIABLE")]
    pub password_env: Option<String>,

    /// Send to all recipients or to none
    #[arg(long)]
    pub all_or_nothing: bool,
    /// Request delivery status notifications: never, or any of success,failure,delay
    #[arg(long, value_name = "LIST")]
    pub notify: Option<String>,
    /// What a failure notification contains: full (the message) or hdrs (its headers)
    #[arg(long, value_name = "WHAT")]
    pub ret: Option<String>,
    /// The envelope ID, which notifications repeat
    #[arg(long, value_name = "ID")]
    pub envid: Option<String>,
    /// Deliver within this time, or return the message
    #[arg(long, value_name = "SECS")]
    pub deliver_by: Option<String>,
    /// Ask the server to hold the message for this time
    #[arg(long, value_name = "SECS")]
    pub hold: Option<String>,
    /// The priority, from -9 to 9
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub priority: Option<String>,
    /// Send only if TLS is verified here and the server promises it for the rest of the way
    #[arg(long)]
    pub require_tls: bool,
    /// Send attachments without base64 if the server offers BINARYMIME
    #[arg(long)]
    pub binary: bool,
    /// Sign the message by DKIM: the domain, the selector, and the file of the private key (PEM)
    #[arg(long, value_name = "DOMAIN,SELECTOR,KEYFILE", num_args = 1..)]
    pub dkim: Vec<String>,
    /// Connect through a proxy: socks5://user:password@host:1080, socks5h:// (the proxy resolves
    /// the server's name), http://host:3128
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// Connect from this address of the machine
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<String>,

    /// The limit of connecting and of each reply; by default the limits of RFC 5321
    #[arg(long, value_name = "SECS")]
    pub timeout: Option<String>,
    /// The limit of the whole call
    #[arg(long, value_name = "SECS")]
    pub deadline: Option<String>,
    /// The number of retries after transient failures, with growing delays
    #[arg(long, value_name = "N")]
    pub retries: Option<String>,
    /// Connect, secure the connection and log in, and send nothing; needs no message
    #[arg(long)]
    pub check: bool,
    /// Show a progress bar, on a terminal
    #[arg(long)]
    pub progress: bool,
    /// Write the dialogue to a file, without secrets; - is standard error
    #[arg(long, value_name = "FILE")]
    pub transcript: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Checks what clap cannot.
    pub fn check(&self) -> Result<(), Failure> {
        let inputs = [
            &self.body_file,
            &self.html,
            &self.message,
            &self.password_file,
            &self.trust_password_file,
        ];
        let inputs = inputs.into_iter().flatten().chain(&self.attach);
        if inputs.filter(|path| is_stdin(path)).count() > 1 {
            return Err(Failure::request(
                "only one option may read standard input (-)",
            ));
        }
        if self.mx { self.check_mx() } else { Ok(()) }
    }

    /// Refuses what has no meaning with --mx.
    fn check_mx(&self) -> Result<(), Failure> {
        const LOGIN: &str = "the servers of other domains have no login for this client";
        for (is_given, option, why) in [
            (
                self.url.is_some(),
                "--url",
                "the servers are those of each recipient's domain",
            ),
            (self.check, "--check", "it is of one server (--url)"),
            (self.auth.is_some(), "--auth", LOGIN),
            (self.password_file.is_some(), "--password-file", LOGIN),
            (self.password_env.is_some(), "--password-env", LOGIN),
        ] {
            if is_given {
                let message = format!("{option} does not go with --mx: {why}");
                return Err(Failure::request(message).with_hint("Leave one of them out."));
            }
        }
        Ok(())
    }
}

/// Whether an option that takes `on` or `off` is on, as it is by default.
pub fn is_on(value: Option<&str>, option: &str) -> Result<bool, Failure> {
    match value {
        None | Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(_) => Err(Failure::request(format!("{option} takes on or off"))
            .with_hint("It is on where the option is left out.")),
    }
}

/// Describes an error of clap without the user's text.
pub fn explain(error: &clap::Error, args: &[OsString]) -> Failure {
    // Names of options, except for `UnknownArgument`, where it is the user's text.
    let names = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => name.clone(),
        Some(ContextValue::Strings(names)) => names.join(", "),
        _ => "an option".into(),
    };
    let option = || names(ContextKind::InvalidArg);
    let failure = Failure::request(match error.kind() {
        ErrorKind::UnknownArgument => match position(&option(), args) {
            Some(position) => format!("argument {position} is not an option that send knows"),
            None => "there is an option that send does not know".into(),
        },
        ErrorKind::MissingRequiredArgument => format!("this is missing: {}", option()),
        ErrorKind::ArgumentConflict if option() == names(ContextKind::PriorArg) => {
            format!("{} is given twice", option())
        }
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
    failure.with_hint(match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(name)) => format!(
            "Did you mean {name}? All options are in \
            --help."
        ),
        _ => "All options are in --help. A value with blanks needs quotes; one that begins with a \
            hyphen is given as --option=value."
            .into(),
    })
}

/// The position of the unknown argument, which is not shown: it may be part of an unquoted
/// password.
fn position(unknown: &str, args: &[OsString]) -> Option<usize> {
    args.iter()
        .skip(1)
        .position(|arg| arg.to_string_lossy().starts_with(unknown))
        .map(|index| index + 1)
}
