//! What became of it: for people, for programs, and as the exit code.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use envoi::proto::Reply;
use envoi::tls::TlsInfo;
use envoi::{Error, ErrorKind, Outcome, Phase, Receipt, Recipient};
use serde_json::{Value, json};

/// Why the message was not accepted for everyone.
pub struct Failure {
    kind: ErrorKind,
    phase: Phase,
    message: String,
    hint: Option<String>,
    reply: Option<Reply>,
    transient: bool,
    unknown: bool,
    receipt: Option<Box<Receipt>>,
}

impl Failure {
    fn new(kind: ErrorKind, phase: Phase, message: String) -> Self {
        Failure {
            kind,
            phase,
            message,
            hint: None,
            reply: None,
            transient: false,
            unknown: false,
            receipt: None,
        }
    }

    /// What is asked for makes no sense.
    pub fn request(message: impl Into<String>) -> Self {
        Failure::new(ErrorKind::Request, Phase::Setup, message.into())
    }

    /// What is set cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Failure::new(ErrorKind::Config, Phase::Setup, message.into())
    }

    /// An input file cannot be read.
    pub fn input(message: impl Into<String>) -> Self {
        Failure::new(ErrorKind::Input, Phase::Setup, message.into())
    }

    /// A text did not come to its end in time.
    pub fn not_read(deadline: Duration) -> Self {
        let message =
            format!("the text of the message was not read before the deadline of {deadline:?}");
        let failure = Failure::new(ErrorKind::Timeout, Phase::Setup, message);
        Failure {
            transient: true,
            ..failure
        }
        .with_hint(
            "Check that what writes to standard input ends, or give it more time (--deadline).",
        )
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Of a message that some recipients will not get, `None` if there are none.
    fn partial(receipt: &Receipt) -> Option<Self> {
        // The list of all of them is in the receipt.
        const NAMED: usize = 10;
        let mut without: Vec<&str> = receipt
            .not_accepted()
            .map(|recipient| recipient.address.as_str())
            .collect();
        if without.is_empty() {
            return None;
        }
        let more = without.len().saturating_sub(NAMED);
        without.truncate(NAMED);
        let mut message = format!("the message was not accepted for {}", without.join(", "));
        if more > 0 {
            message += &format!(" and {more} more");
        }
        if let Some(reason) = &receipt.incomplete_reason {
            message += &format!(": {reason}");
        }
        let mut failure = Failure::new(ErrorKind::Refused, Phase::Rcpt, message);
        failure.hint = hints(receipt);
        failure.unknown = receipt
            .not_accepted()
            .any(|recipient| recipient.outcome == Outcome::Unknown);
        failure.transient = !failure.unknown && !refused_for_good(receipt);
        Some(failure)
    }

    fn exit_code(&self, receipt: Option<&Receipt>) -> u8 {
        let code = match self.kind {
            _ if self.unknown => 79,
            ErrorKind::Request => 64,
            ErrorKind::Input => 66,
            ErrorKind::Config => 78,
            ErrorKind::Protocol | ErrorKind::Insecure => 76,
            // A login or STARTTLS that was answered with 4xx counts as any other 4xx.
            _ if self.transient => 75,
            ErrorKind::Tls => 76,
            ErrorKind::Auth => 77,
            _ => 69,
        };
        // What was said to one recipient for good outweighs what may pass.
        if code == 75 && receipt.is_some_and(refused_for_good) {
            69
        } else {
            code
        }
    }

    fn json(&self, receipt: Option<&Receipt>) -> Value {
        let is_transient = self.transient && !receipt.is_some_and(refused_for_good);
        json!({
            "kind": self.kind.as_str(),
            "phase": self.phase.as_str(),
            "message": self.message,
            "hint": self.hint,
            "transient": is_transient,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        // The error has the hint for one reply, and some recipients had another one for good.
        let receipt = error
            .receipt()
            .filter(|receipt| error.is_transient() && refused_for_good(receipt));
        let hint = receipt
            .and_then(hints)
            .or_else(|| error.hint().map(in_options));
        Failure {
            kind: error.kind(),
            phase: error.phase(),
            message: error.message().to_owned(),
            hint,
            reply: error.reply().cloned(),
            transient: error.is_transient(),
            unknown: error.outcome_unknown(),
            receipt: error.receipt().cloned().map(Box::new),
        }
    }
}

/// Everything that there is to say.
pub struct Report {
    receipt: Option<Receipt>,
    failure: Option<Failure>,
    elapsed: Duration,
}

impl Report {
    pub fn new(result: Result<Receipt, Failure>, elapsed: Duration) -> Self {
        let (receipt, failure) = match result {
            Ok(receipt) => {
                let failure = Failure::partial(&receipt);
                (Some(receipt), failure)
            }
            Err(mut failure) => (
                failure.receipt.take().map(|receipt| *receipt),
                Some(failure),
            ),
        };
        Report {
            receipt,
            failure,
            elapsed,
        }
    }

    /// The dialogue, as far as there was one.
    pub fn transcript(&self) -> String {
        self.receipt
            .as_ref()
            .map(|receipt| receipt.transcript.to_string())
            .unwrap_or_default()
    }

    pub fn exit_code(&self) -> u8 {
        self.failure
            .as_ref()
            .map_or(0, |failure| failure.exit_code(self.receipt.as_ref()))
    }

    /// Tells it: the failure on standard error, the rest on standard output.
    pub fn print(&self, as_json: bool) {
        if as_json {
            line(io::stdout(), self.json());
        } else if let Some(receipt) = &self.receipt {
            self.print_receipt(receipt);
        }
        if let Some(failure) = &self.failure {
            line(io::stderr(), format_args!("send: {}", failure.message));
            if let Some(reply) = &failure.reply {
                line(io::stderr(), format_args!("  the server said: {reply}"));
            }
            if let Some(hint) = &failure.hint {
                line(io::stderr(), format_args!("  hint: {hint}"));
            }
        }
    }

    fn print_receipt(&self, receipt: &Receipt) {
        let out = io::stdout;
        for Recipient {
            address, outcome, ..
        } in &receipt.recipients
        {
            match outcome {
                Outcome::Accepted(_) => line(out(), format_args!("accepted for {address}")),
                Outcome::Refused(reply) => {
                    line(out(), format_args!("refused for {address}: {reply}"))
                }
                Outcome::Unknown => line(
                    out(),
                    format_args!("unknown for {address}: it may have been delivered"),
                ),
                Outcome::NotTried => line(out(), format_args!("not tried for {address}")),
            }
        }
        let told_with_failure = self
            .failure
            .as_ref()
            .is_some_and(|failure| failure.reply.is_some());
        if let Some(reply) = receipt.reply.as_ref().filter(|_| !told_with_failure) {
            line(out(), format_args!("{} said: {reply}", receipt.server));
        }
        match (&receipt.tls, &receipt.plaintext_reason) {
            (Some(tls), _) => line(out(), tls),
            (None, Some(reason)) => line(out(), format_args!("not encrypted: {reason}")),
            (None, None) => {}
        }
        if let Some(mechanism) = receipt.mechanism {
            line(out(), format_args!("logged in with {mechanism}"));
        }
        if receipt.bytes > 0 {
            let (bytes, trips, seconds) = (
                receipt.bytes,
                receipt.round_trips,
                receipt.elapsed.as_secs_f64(),
            );
            line(
                out(),
                format_args!("{bytes} bytes, {trips} round trips, {seconds:.2} s"),
            );
        }
    }

    fn json(&self) -> Value {
        let receipt = self.receipt.as_ref();
        let reply = receipt.and_then(|receipt| receipt.reply.as_ref());
        let failed_by = self
            .failure
            .as_ref()
            .and_then(|failure| failure.reply.as_ref());
        let elapsed = receipt.map_or(self.elapsed, |receipt| receipt.elapsed);
        json!({
            "outcome": self.outcome(),
            "server": receipt.map(|receipt| &receipt.server),
            "reply": reply.or(failed_by).map(reply_json),
            "recipients": receipt.map(|receipt| receipt.recipients.iter().map(recipient_json).collect::<Vec<_>>()),
            "tls": receipt.and_then(|receipt| receipt.tls.as_ref()).map(tls_json),
            "auth": receipt.and_then(|receipt| receipt.mechanism).map(|mechanism| mechanism.as_str()),
            "bytes": receipt.map(|receipt| receipt.bytes),
            "round_trips": receipt.map(|receipt| receipt.round_trips),
            "seconds": elapsed.as_secs_f64(),
            "error": self.failure.as_ref().map(|failure| failure.json(self.receipt.as_ref())),
        })
    }

    fn outcome(&self) -> &'static str {
        let accepted = |receipt: &Receipt| {
            receipt
                .recipients
                .iter()
                .any(|recipient| recipient.outcome.is_accepted())
        };
        match &self.failure {
            None => "sent",
            Some(failure) if failure.unknown => "unknown",
            Some(_) if self.receipt.as_ref().is_some_and(accepted) => "partial",
            Some(_) => "failed",
        }
    }
}

/// What hints name of the API, and what stands for it on the command line. What has no option is
/// given in the URL, which they name, too.
const OPTIONS: [(&str, &str); 23] = [
    (
        "by a reader (Attachment::reader, Message::raw_stream)",
        "given as - on standard input",
    ),
    ("TlsSettings::client_certificate", "--client-cert"),
    ("ClientCertificate::file", "--client-cert"),
    ("ClientCertificate::key", "--client-key"),
    ("ClientCertificate::password_file", "--trust-password-file"),
    ("ClientCertificate::password", "--trust-password"),
    ("TlsSettings::server_name, or ", ""),
    ("TlsSettings::server_name, ", ""),
    ("TlsSettings::min_version, ", ""),
    ("TlsSettings::max_version, ", ""),
    ("Trust::system", "--system-trust"),
    ("Trust::path", "--trust"),
    ("Trust::folder or --trust", "--trust"),
    ("Trust::file or --trust", "--trust"),
    ("Trust::pin, ", ""),
    ("Trust::password_file", "--trust-password-file"),
    ("Trust::password", "--trust-password"),
    ("Endpoint::client_name", "--helo"),
    ("Endpoint::mechanisms", "--auth"),
    ("Endpoint::mechanism", "--auth"),
    // It has no option: line ends of the header section would no longer be repaired.
    (
        " A raw message can also go as it is (LineEnds::Keep), to a server that offers \
            BINARYMIME.",
        "",
    ),
    (
        "Timeouts::login, which timeout= in the URL sets to four times its own value",
        "--timeout, or timeout= in the URL",
    ),
    (
        "Timeouts::total_wait, which timeout= in the URL sets to four times its own value",
        "--timeout, or timeout= in the URL",
    ),
];

/// The hint, as it is for someone who has the options of `send` and not the API.
fn in_options(hint: &str) -> String {
    OPTIONS
        .iter()
        .fold(hint.to_owned(), |hint, (name, option)| {
            hint.replace(name, option)
        })
}

/// What to do for those who were refused: each advice once, with the first recipient that it is
/// for, where there are several.
fn hints(receipt: &Receipt) -> Option<String> {
    let mut hints: Vec<(&Recipient, &str)> = Vec::new();
    for recipient in receipt.not_accepted() {
        if let Some(hint) = recipient
            .hint()
            .filter(|hint| hints.iter().all(|(_, known)| known != hint))
        {
            hints.push((recipient, hint));
        }
    }
    match hints[..] {
        [] => None,
        [(_, hint)] => Some(in_options(hint)),
        _ => {
            let each = hints.iter().map(|(recipient, hint)| {
                format!("For {}: {}", recipient.address, in_options(hint))
            });
            Some(each.collect::<Vec<_>>().join(" "))
        }
    }
}

fn refused_for_good(receipt: &Receipt) -> bool {
    let may_have_it =
        |outcome: &Outcome| matches!(outcome, Outcome::Accepted(_) | Outcome::Unknown);
    receipt
        .recipients
        .iter()
        .any(|recipient| !recipient.is_transient() && !may_have_it(&recipient.outcome))
}

fn reply_json(reply: &Reply) -> Value {
    json!({
        "code": reply.code(),
        "enhanced": reply.enhanced().map(|code| code.to_string()),
        "text": reply.text(),
    })
}

fn recipient_json(recipient: &Recipient) -> Value {
    let (outcome, accepted, reply) = match &recipient.outcome {
        Outcome::Accepted(reply) => ("accepted", Some(true), Some(reply)),
        Outcome::Refused(reply) => ("refused", Some(false), Some(reply)),
        Outcome::Unknown => ("unknown", None, None),
        Outcome::NotTried => ("not-tried", None, None),
    };
    json!({
        "address": recipient.address.as_str(),
        "outcome": outcome,
        "accepted": accepted,
        "code": reply.map(Reply::code),
        "enhanced": reply.and_then(Reply::enhanced).map(|code| code.to_string()),
        "text": reply.map(Reply::text),
    })
}

fn tls_json(tls: &TlsInfo) -> Value {
    let peer = tls.peer();
    json!({
        "version": tls.version,
        "cipher": tls.cipher,
        "peer": peer.map(|certificate| &certificate.subject),
        "issuer": peer.map(|certificate| &certificate.issuer),
        "not_after": peer.map(|certificate| certificate.not_after_text()),
        "verified": tls.is_verified(),
    })
}

/// Prints a line. Control characters, which a certificate may have in its names, do not reach the
/// terminal.
fn line(mut out: impl Write, text: impl Display) {
    let text = text.to_string().replace(char::is_control, "\u{fffd}");
    // Whoever reads may be gone; the exit code says the same.
    let _ = writeln!(out, "{text}");
}
