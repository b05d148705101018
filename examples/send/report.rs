//! The result: as text, as JSON, and as the exit code.

use std::fmt::Display;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use envoi::mx::{DomainResult, MxReceipt, Via};
use envoi::proto::Reply;
use envoi::tls::{TlsInfo, UsedCertificate};
use envoi::{CheckReport, Error, ErrorKind, Outcome, Phase, Receipt, Recipient};
use serde_json::{Value, json};

/// Why the message was not accepted for all recipients.
pub struct Failure {
    kind: ErrorKind,
    phase: Phase,
    message: String,
    hint: Option<String>,
    reply: Option<Reply>,
    transient: bool,
    exit_code: u8,
    receipt: Option<Box<Receipt>>,
}

impl Failure {
    fn new(kind: ErrorKind, phase: Phase, exit_code: u8, message: String) -> Self {
        Failure {
            kind,
            phase,
            message,
            hint: None,
            reply: None,
            transient: false,
            exit_code,
            receipt: None,
        }
    }

    /// The request is invalid.
    pub fn request(message: impl Into<String>) -> Self {
        Failure::new(ErrorKind::Request, Phase::Setup, 64, message.into())
    }

    /// A setting cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Failure::new(ErrorKind::Config, Phase::Setup, 78, message.into())
    }

    /// An input file cannot be read.
    pub fn input(message: impl Into<String>) -> Self {
        Failure::new(ErrorKind::Input, Phase::Setup, 66, message.into())
    }

    /// The end of a text was not reached in time.
    pub fn not_read(deadline: Duration) -> Self {
        let message =
            format!("the text of the message was not read before the deadline of {deadline:?}");
        let failure = Failure::new(ErrorKind::Timeout, Phase::Setup, 75, message);
        Failure {
            transient: true,
            ..failure
        }
        .with_hint(
            "Check that what writes to standard input ends, or give it more time (--deadline).",
        )
    }

    /// Names the option that it is about.
    pub fn of(mut self, option: &str) -> Self {
        self.message = format!("{option}: {}", self.message);
        self
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Why the message was not accepted for all recipients of a domain, which is named if it is one
    /// of several. `None` if it was.
    fn of_domain(domain: &DomainResult, is_one_of_several: bool) -> Option<Self> {
        let error = match &domain.result {
            Ok(receipt) => return Failure::partial(receipt),
            Err(error) => error,
        };
        let mut failure = Failure::from(error.clone());
        // There is another server after one that violates the protocol, so that this is a refusal.
        // Before that, it is the proxy's.
        let is_of_server = matches!(failure.kind, ErrorKind::Protocol | ErrorKind::Auth)
            && failure.phase != Phase::Connect;
        if is_of_server && failure.exit_code != UNKNOWN {
            failure.exit_code = 69;
        }
        if let Some(receipt) = error.receipt().filter(|_| is_one_of_several) {
            let is = match failure.exit_code {
                UNKNOWN => "it is unknown whether the message was accepted for",
                _ => "the message was not accepted for",
            };
            failure.message = format!("{is} {}: {}", not_accepted(receipt), failure.message);
        }
        Some(failure)
    }

    /// The failure of a message that some recipients did not accept; `None` if all did.
    fn partial(receipt: &Receipt) -> Option<Self> {
        if receipt.all_accepted() {
            return None;
        }
        let mut message = format!("the message was not accepted for {}", not_accepted(receipt));
        if let Some(reason) = &receipt.incomplete_reason {
            message += &format!(": {reason}");
        }
        let unknown = receipt
            .not_accepted()
            .any(|recipient| recipient.outcome == Outcome::Unknown);
        let exit_code = match unknown {
            true => UNKNOWN,
            false if has_permanent_refusal(receipt) => 69,
            false => 75,
        };
        let mut failure = Failure::new(ErrorKind::Refused, Phase::Rcpt, exit_code, message);
        failure.hint = hints(receipt);
        failure.transient = exit_code == 75;
        Some(failure)
    }

    /// What failed, with the server's reply.
    fn event(&self) -> String {
        let reply = self.reply_apart();
        let reply = reply.map(|reply| format!("; the server said: {reply}"));
        self.message.clone() + &reply.unwrap_or_default()
    }

    /// The server's reply, unless the message has it.
    fn reply_apart(&self) -> Option<String> {
        let reply = self.reply.as_ref().map(ToString::to_string);
        reply.filter(|reply| !self.message.contains(reply))
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind.as_str(),
            "phase": self.phase.as_str(),
            "message": self.message,
            "hint": self.hint,
            "transient": self.transient,
        })
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        // A permanent refusal of one recipient outweighs the transient error for another.
        let receipt = error
            .receipt()
            .filter(|receipt| error.is_transient() && has_permanent_refusal(receipt));
        let hint = receipt
            .and_then(hints)
            .or_else(|| error.hint().map(in_options));
        let exit_code = match error.exit_code() {
            75 if receipt.is_some() => 69,
            code => code,
        };
        Failure {
            kind: error.kind(),
            phase: error.phase(),
            message: error.message().to_owned(),
            hint,
            reply: error.reply().cloned(),
            transient: error.is_transient() && receipt.is_none(),
            exit_code,
            receipt: error.receipt().cloned().map(Box::new),
        }
    }
}

/// The exit code of an unknown outcome, the only one that is not in sysexits.h.
const UNKNOWN: u8 = 79;

/// What was done.
pub enum Success {
    /// The message was accepted, at least for some recipients.
    Sent(Box<Receipt>),
    /// The message went to the servers of each recipient's domain, which may have refused it.
    Delivered(Box<Delivery>),
    /// The server was checked, and nothing was sent.
    Checked(Box<CheckReport>),
}

/// How a message went to the servers of each recipient's domain.
pub struct Delivery {
    receipt: Option<Receipt>,
    /// For each recipient, the last server that was reached.
    vias: Vec<Option<Via>>,
    is_of_one_domain: bool,
    /// Of each domain that has not accepted it for all recipients. The first one decides: an
    /// unknown outcome is before a refusal, and this before a transient failure.
    failures: Vec<Failure>,
}

impl From<MxReceipt> for Delivery {
    fn from(receipt: MxReceipt) -> Self {
        let is_of_one_domain = receipt.domains.len() == 1;
        let mut domains: Vec<_> = receipt.domains.iter().collect();
        domains.sort_by_key(|domain| &domain.domain);
        let mut failures: Vec<_> = domains
            .into_iter()
            .filter_map(|domain| Failure::of_domain(domain, !is_of_one_domain))
            .collect();
        failures.sort_by_key(|failure| match failure.exit_code {
            UNKNOWN => 0,
            69 => 1,
            75 => 3,
            _ => 2,
        });
        Delivery {
            vias: receipt.recipients().map(|to| to.via.cloned()).collect(),
            is_of_one_domain,
            failures,
            receipt: receipt
                .into_result()
                .map_or_else(|error| error.receipt().cloned(), Some),
        }
    }
}

/// The whole result.
pub struct Report {
    receipt: Option<Receipt>,
    delivery: Option<Delivery>,
    checked: Option<CheckReport>,
    /// The first one decides.
    failures: Vec<Failure>,
    elapsed: Duration,
}

impl Report {
    pub fn new(result: Result<Success, Failure>, elapsed: Duration) -> Self {
        let mut report = Report {
            receipt: None,
            delivery: None,
            checked: None,
            failures: Vec::new(),
            elapsed,
        };
        match result {
            Ok(Success::Sent(receipt)) => {
                report.failures.extend(Failure::partial(&receipt));
                report.receipt = Some(*receipt);
            }
            Ok(Success::Delivered(mut delivery)) => {
                report.receipt = delivery.receipt.take();
                report.failures = mem::take(&mut delivery.failures);
                report.delivery = Some(*delivery);
            }
            Ok(Success::Checked(checked)) => {
                report.receipt = Some(session(&checked));
                report.checked = Some(*checked);
            }
            Err(mut failure) => {
                report.receipt = failure.receipt.take().map(|receipt| *receipt);
                report.failures.push(failure);
            }
        }
        report
    }

    /// The failure that decides.
    fn failure(&self) -> Option<&Failure> {
        self.failures.first()
    }

    /// The dialogue, empty if there was none.
    pub fn transcript(&self) -> String {
        self.receipt
            .as_ref()
            .map(|receipt| receipt.transcript.to_string())
            .unwrap_or_default()
    }

    pub fn exit_code(&self) -> u8 {
        self.failure().map_or(0, |failure| failure.exit_code)
    }

    /// Prints the failure on standard error, the rest on standard output.
    pub fn print(&self, as_json: bool) {
        if as_json {
            line(io::stdout(), self.json());
        } else if let Some(report) = &self.checked {
            for text in report.to_string().lines() {
                line(io::stdout(), in_options(text));
            }
        } else if let Some(receipt) = &self.receipt {
            self.print_receipt(receipt);
        }
        for failure in &self.failures {
            line(io::stderr(), format_args!("send: {}", failure.message));
            if let Some(reply) = failure.reply_apart() {
                line(io::stderr(), format_args!("  the server said: {reply}"));
            }
            if let Some(hint) = &failure.hint {
                line(io::stderr(), format_args!("  hint: {hint}"));
            }
        }
    }

    fn print_receipt(&self, receipt: &Receipt) {
        let out = io::stdout;
        for (index, recipient) in receipt.recipients.iter().enumerate() {
            let Recipient {
                address, outcome, ..
            } = recipient;
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
            if let Some(via) = self.via(index) {
                let by = if outcome.is_accepted() { "by" } else { "at" };
                line(out(), format_args!("  {by} {via}"));
            }
        }
        let printed_with_failure = self
            .failure()
            .is_some_and(|failure| failure.reply.is_some());
        if let Some(reply) = receipt.reply.as_ref().filter(|_| !printed_with_failure) {
            line(out(), format_args!("{} said: {reply}", receipt.server));
        }
        // With a delivery, it was printed for each recipient.
        let session = self.delivery.is_none().then_some(receipt);
        let session = session.map(|receipt| (&receipt.tls, &receipt.plaintext_reason));
        match session.unwrap_or((&None, &None)) {
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
        let failed_by = self.failure().and_then(|failure| failure.reply.as_ref());
        let recipients = receipt.map(|receipt| {
            let recipients = receipt.recipients.iter().enumerate();
            let recipients = recipients.map(|(index, recipient)| {
                let mut json = recipient_json(recipient);
                if self.delivery.is_some() {
                    json["via"] = self.via(index).map(via_json).into();
                }
                json
            });
            recipients.collect::<Vec<_>>()
        });
        // Of several domains, or where no server was reached, there is not one server.
        let has_server = self.delivery.as_ref().is_none_or(|delivery| {
            delivery.is_of_one_domain && delivery.vias.iter().any(Option::is_some)
        });
        let session = receipt.filter(|_| has_server);
        let mechanism = receipt.and_then(|receipt| receipt.mechanism);
        let elapsed = receipt.map_or(self.elapsed, |receipt| receipt.elapsed);
        let mut json = json!({
            "outcome": self.outcome(),
            "server": session.map(|receipt| &receipt.server),
            "reply": reply.or(failed_by).filter(|_| has_server).map(reply_json),
            "recipients": recipients,
            "tls": session.and_then(|receipt| receipt.tls.as_deref()).map(tls_json),
            "auth": mechanism.map(|mechanism| mechanism.as_str()),
            "bytes": receipt.map(|receipt| receipt.bytes),
            "round_trips": receipt.map(|receipt| receipt.round_trips),
            "seconds": elapsed.as_secs_f64(),
            "error": self.error_json(),
        });
        if let Some(report) = &self.checked {
            json["check"] = check_json(report);
        }
        json
    }

    /// The failure that decides, with what failed for the other domains in its message.
    fn error_json(&self) -> Option<Value> {
        let mut json = self.failure()?.json();
        if let [_, _, ..] = self.failures[..] {
            let events: Vec<String> = self.failures.iter().map(Failure::event).collect();
            json["message"] = events.join("; ").into();
        }
        Some(json)
    }

    fn via(&self, recipient: usize) -> Option<&Via> {
        self.delivery.as_ref()?.vias.get(recipient)?.as_ref()
    }

    fn outcome(&self) -> &'static str {
        let accepted = |receipt: &Receipt| {
            receipt
                .recipients
                .iter()
                .any(|recipient| recipient.outcome.is_accepted())
        };
        match self.failure() {
            None if self.checked.is_some() => "checked",
            None => "sent",
            Some(failure) if failure.exit_code == UNKNOWN => "unknown",
            Some(_) if self.receipt.as_ref().is_some_and(accepted) => "partial",
            Some(_) => "failed",
        }
    }
}

/// Names of the API in hints, and the options that replace them. Settings without an option are
/// set in the URL, which the hints also name.
const OPTIONS: [(&str, &str); 34] = [
    (
        "by a reader (Attachment::reader, Message::raw_stream)",
        "given as - on standard input",
    ),
    ("(Attachment::file, Message::raw_file)", "by its name"),
    (", or read the key by DkimKey::from_pem", ""),
    // Each run reads the files anew.
    (", and load it again (Client::reload_trust)", ""),
    // With --mx there is no URL.
    ("Trust::path, or trust= in the URL", "--trust"),
    ("Trust::path, trust= in the URL", "--trust"),
    ("increase timeout= in the URL", "increase --timeout"),
    ("MxClient::trust", "--trust"),
    ("Security::Required", "tls=required in the URL"),
    ("Security::None", "tls=none in the URL"),
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
    ("Timeouts::deadline", "--deadline"),
    (
        "helo= in the URL, Endpoint::client_name, MxClient::client_name",
        "--helo",
    ),
    ("Endpoint::client_name", "--helo"),
    ("Endpoint::mechanisms", "--auth"),
    ("Endpoint::mechanism", "--auth"),
    // Has no option: line ends of the header section would no longer be repaired.
    (
        " A raw message can also go as it is (LineEnds::Keep), to a server that offers \
            BINARYMIME.",
        "",
    ),
    (
        "Timeouts::login, which timeout= in the URL sets to four times its own value",
        "--timeout",
    ),
    (
        "Timeouts::total_wait, which timeout= in the URL sets to four times its own value",
        "--timeout",
    ),
];

/// The recipients without the message, of whom the receipt lists all.
fn not_accepted(receipt: &Receipt) -> String {
    const NAMED: usize = 10;
    let mut without: Vec<&str> = receipt
        .not_accepted()
        .map(|recipient| recipient.address.as_str())
        .collect();
    let more = without.len().saturating_sub(NAMED);
    without.truncate(NAMED);
    match more {
        0 => without.join(", "),
        more => format!("{} and {more} more", without.join(", ")),
    }
}

/// The hint with the options of `send` in place of the API.
fn in_options(hint: &str) -> String {
    OPTIONS
        .iter()
        .fold(hint.to_owned(), |hint, (name, option)| {
            hint.replace(name, option)
        })
}

/// The hints for the refused recipients, each once; if there are several, each with the first
/// recipient that it applies to.
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

fn has_permanent_refusal(receipt: &Receipt) -> bool {
    let may_have_it =
        |outcome: &Outcome| matches!(outcome, Outcome::Accepted(_) | Outcome::Unknown);
    receipt
        .recipients
        .iter()
        .any(|recipient| !recipient.is_transient() && !may_have_it(&recipient.outcome))
}

/// The receipt of a session in which nothing was sent.
fn session(report: &CheckReport) -> Receipt {
    let mut receipt = Receipt::new(report.server.as_str());
    receipt.tls = report.tls.clone().map(Arc::new);
    receipt.plaintext_reason = report.plaintext_reason.clone();
    receipt.mechanism = report.mechanism;
    receipt.round_trips = report.round_trips;
    receipt.elapsed = report.elapsed;
    receipt.transcript = report.transcript.clone();
    receipt
}

fn check_json(report: &CheckReport) -> Value {
    let certificate = |used: &UsedCertificate| {
        json!({
            "use": used.usage.as_str(),
            "subject": used.certificate.subject,
            "not_after": used.certificate.not_after_text(),
            "expires_soon": used.expires_soon(),
        })
    };
    let advice = report.advice.iter().map(|advice| in_options(advice));
    json!({
        "size_limit": report.capabilities.size_limit(),
        "certificates": report.certificates.iter().map(certificate).collect::<Vec<_>>(),
        "advice": advice.collect::<Vec<_>>(),
    })
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

fn via_json(via: &Via) -> Value {
    json!({
        "host": via.host,
        "address": via.address,
        "policy": via.policy.as_str(),
        "tls": via.tls.as_ref().map(|tls| &tls.version),
        "verified": via.is_verified(),
        "dnssec": via.dnssec,
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

/// Prints a line. Control characters, which the names in a certificate may contain, do not reach
/// the terminal.
fn line(mut out: impl Write, text: impl Display) {
    let text = text.to_string().replace(char::is_control, "\u{fffd}");
    // The reader may have closed the pipe; the exit code is the same.
    let _ = writeln!(out, "{text}");
}
