//! The report: as text, as JSON, and as the exit code.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

use envoi::Error;
use envoi::probe::{Port, Report, Timings, Version};
use envoi::proto::{Capabilities, Keyword, Reply};
use envoi::tls::{Certificate, TlsInfo};
use serde_json::{Value, json};

/// Why nothing was examined, or a file was not written.
pub struct Failure {
    code: u8,
    kind: &'static str,
    phase: &'static str,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// The request is invalid.
    pub fn request(message: impl Into<String>) -> Self {
        Failure {
            code: 64,
            kind: "request",
            phase: "setup",
            message: message.into(),
            hint: None,
        }
    }

    /// An input file cannot be read.
    pub fn input(message: impl Into<String>) -> Self {
        Failure {
            code: 66,
            kind: "input",
            phase: "setup",
            message: message.into(),
            hint: None,
        }
    }

    /// A setting cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Failure {
            code: 78,
            kind: "config",
            phase: "setup",
            message: message.into(),
            hint: None,
        }
    }

    /// A file cannot be written.
    pub fn unwritable(message: impl Into<String>) -> Self {
        Failure {
            code: 73,
            kind: "output",
            phase: "setup",
            message: message.into(),
            hint: None,
        }
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
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        Failure {
            code: error.exit_code(),
            kind: error.kind().as_str(),
            phase: error.phase().as_str(),
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
        }
    }
}

/// 0 if a port can be used, else the code of the failure of the best one.
pub fn exit_code(report: &Report) -> u8 {
    report
        .best()
        .and_then(|port| port.failure.as_ref())
        .map_or(0, Error::exit_code)
}

pub fn print(report: &Report, as_json: bool) {
    match as_json {
        true => write_stdout(format!("{}\n", report_json(report))),
        false => write_stdout(report),
    }
}

/// Writes to standard output. The reader may have closed the pipe; the exit code is the same.
pub fn write_stdout(text: impl Display) {
    let _ = write!(io::stdout(), "{text}");
}

/// Prints a failure, in JSON within the form of the report, and returns the exit code.
pub fn print_failure(failure: &Failure, form: Option<fn(Value) -> Value>) -> u8 {
    // The reader may have closed this pipe, too.
    let mut stderr = io::stderr();
    let _ = writeln!(stderr, "probe: {}", failure.message);
    if let Some(hint) = &failure.hint {
        let _ = writeln!(stderr, "  hint: {hint}");
    }
    // With 73, the report was printed already.
    if let Some(form) = form.filter(|_| failure.code != 73) {
        let error = json!({
            "kind": failure.kind,
            "phase": failure.phase,
            "message": failure.message,
            "hint": failure.hint,
            "transient": false,
        });
        write_stdout(format!("{}\n", form(error)));
    }
    failure.code
}

/// The form of the report, for a request that is invalid.
pub fn no_report(error: Value) -> Value {
    json!({
        "host": null,
        "usable": false,
        "user": null,
        "trusted": null,
        "ports": [],
        "advice": null,
        "seconds": null,
        "error": error,
    })
}

fn report_json(report: &Report) -> Value {
    let failure = report.best().and_then(|port| port.failure.as_ref());
    json!({
        "host": report.host,
        "usable": report.is_usable(),
        "user": report.user,
        "trusted": {
            "certificates": report.trusted.anchors.len(),
            "warnings": report.trusted.warnings,
        },
        "ports": report.ports.iter().map(port_json).collect::<Vec<_>>(),
        "advice": report.advice.as_ref().map(|advice| json!({
            "port": advice.port,
            "usable": advice.usable,
            "url": advice.url,
            "rust": advice.rust,
        })),
        "seconds": report.elapsed.as_secs_f64(),
        "error": failure.map(error_json),
    })
}

fn port_json(port: &Port) -> Value {
    json!({
        "port": port.number,
        "usable": port.is_usable(),
        "address": port.address,
        "speaks": port.speaks.map(|speaks| speaks.as_str()),
        "greeting": port.greeting.as_ref().map(reply_json),
        "before_tls": port.before_tls.as_ref().map(capabilities_json),
        "inside_tls": port.inside_tls.as_ref().map(capabilities_json),
        "tls": port.tls.as_ref().map(tls_json),
        "versions": port.versions.iter().map(version_json).collect::<Vec<_>>(),
        "login": port.login.map(|mechanism| mechanism.as_str()),
        "seconds": timings_json(&port.timings),
        "error": port.failure.as_ref().map(error_json),
    })
}

fn reply_json(reply: &Reply) -> Value {
    json!({
        "code": reply.code(),
        "enhanced": reply.enhanced().map(|code| code.to_string()),
        "text": reply.text(),
    })
}

fn capabilities_json(offered: &Capabilities) -> Value {
    let line = |keyword: &Keyword| {
        format!("{} {}", keyword.name, keyword.parameters)
            .trim_end()
            .to_owned()
    };
    json!({
        "server": offered.server_name(),
        "keywords": offered.keywords().iter().map(line).collect::<Vec<_>>(),
        "size": offered.size_limit(),
        "auth": offered.auth(),
    })
}

pub fn tls_json(tls: &TlsInfo) -> Value {
    let failure = tls.not_verified_reason.as_ref();
    json!({
        "version": tls.version,
        "cipher": tls.cipher,
        "key_exchange": tls.key_exchange,
        "verified": tls.is_verified(),
        "verified_by": tls.verified_by,
        "not_verified_reason": failure.map(|failure| failure.to_string()),
        "hint": failure.map(|failure| failure.hint()),
        "chain": tls.chain.iter().map(certificate_json).collect::<Vec<_>>(),
    })
}

fn certificate_json(certificate: &Certificate) -> Value {
    json!({
        "subject": certificate.subject,
        "names": certificate.names,
        "issuer": certificate.issuer,
        "not_before": certificate.not_before_text(),
        "not_after": certificate.not_after_text(),
        "sha256": certificate.sha256,
        "pin": certificate.pin(),
    })
}

fn version_json(version: &Version) -> Value {
    json!({
        "version": version.version.to_string(),
        "accepted": version.is_accepted(),
        "error": version.failure.as_ref().map(error_json),
    })
}

fn timings_json(timings: &Timings) -> Value {
    let seconds = |step: Option<Duration>| step.map(|took| took.as_secs_f64());
    json!({
        "connect": seconds(timings.connect),
        "greeting": seconds(timings.greeting),
        "tls": seconds(timings.tls),
        "ready": seconds(timings.ready),
        "login": seconds(timings.login),
    })
}

pub fn error_json(error: &Error) -> Value {
    json!({
        "kind": error.kind().as_str(),
        "phase": error.phase().as_str(),
        "message": error.message(),
        "reply": error.reply().map(reply_json),
        "hint": error.hint(),
        "transient": error.is_transient(),
    })
}
