//! Formats the report for a terminal.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime};

use super::{Port, PortSecurity, Report, Version};
use crate::proto::Capabilities;
use crate::text::printable;
use crate::tls::{Certificate, SYSTEM, TlsInfo};
use crate::{Error, date};

/// The maximum width of a line in columns.
const WIDTH: usize = 100;
const INDENT: usize = 12;
const NO_LOGIN: &str = "not offered";
/// The maximum number of names of a certificate to show.
const NAMES: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.trusted.anchors.len();
        let plural = if number == 1 { "" } else { "s" };
        let duration = time(self.elapsed);
        paragraph(
            f,
            &format!(
                "{}: probed in {duration}, trusting {number} certificate{plural}",
                self.host
            ),
        )?;
        // The system store has many expired authorities, which are of no interest here.
        let of_system = format!("({SYSTEM})");
        for warning in self
            .trusted
            .warnings
            .iter()
            .filter(|warning| !warning.contains(&of_system))
        {
            row(f, "warning", warning)?;
        }
        let mut shown = None;
        for (index, port) in self.ports.iter().enumerate() {
            writeln!(f)?;
            port.fmt_for(f, self.user.as_deref(), &self.ports[..index])?;
            // A hint that several ports share is shown once.
            let hint = port.failure.as_ref().and_then(Error::hint);
            if let Some(hint) = hint.filter(|_| hint != shown) {
                row(f, "hint", hint)?;
            }
            shown = hint;
        }
        writeln!(f)?;
        let Some(advice) = &self.advice else {
            return paragraph(f, "No mail server was found here.");
        };
        if advice.usable {
            writeln!(f, "Use {}", printable(advice.url.as_str()))?;
        } else {
            let port = advice.port;
            let text = format!(
                "No port can be used as it is. Port {port} is closest to it; once its failure is \
                    mended, use"
            );
            paragraph(f, &text)?;
            writeln!(f, "    {}", printable(advice.url.as_str()))?;
        }
        advice
            .rust
            .lines()
            .try_for_each(|line| writeln!(f, "    {}", printable(line)))
    }
}

impl Port {
    /// Formats a port for this user. `earlier` are the ports before it, whose certificates are not
    /// repeated.
    fn fmt_for(
        &self,
        f: &mut fmt::Formatter<'_>,
        user: Option<&str>,
        earlier: &[Port],
    ) -> fmt::Result {
        let usability = if self.is_usable() {
            "can be used"
        } else {
            "cannot be used"
        };
        let security = match (self.speaks, &self.before_tls) {
            (Some(PortSecurity::Tls), _) => ", TLS from the first byte",
            (Some(PortSecurity::Plaintext), Some(offered)) if offered.offers("STARTTLS") => {
                ", plaintext and then STARTTLS"
            }
            (Some(PortSecurity::Plaintext), Some(_)) => ", plaintext without STARTTLS",
            (Some(PortSecurity::Plaintext), None) => ", plaintext",
            (None, _) => "",
        };
        writeln!(f, "Port {}{security}: {usability}", self.number)?;
        self.fmt_connection(f)?;
        if let Some(greeting) = &self.greeting {
            row(f, "greeting", &greeting.to_string())?;
        }
        if let Some(offered) = &self.before_tls {
            row(f, "in clear", &keywords(offered))?;
        }
        if let Some(offered) = &self.inside_tls {
            row(f, "in TLS", &keywords(offered))?;
        }
        if let Some(limit) = self
            .inside_tls
            .as_ref()
            .or(self.before_tls.as_ref())
            .and_then(Capabilities::size_limit)
        {
            row(
                f,
                "size",
                &format!("messages of up to {limit} bytes ({})", rounded(limit)),
            )?;
        }
        self.fmt_login(f, user)?;
        self.fmt_tls(f, earlier)?;
        if let Some(failure) = &self.failure {
            let shown = failure.phase() == crate::Phase::Tls
                && self
                    .tls
                    .as_ref()
                    .is_some_and(|tls| tls.not_verified_reason.is_some());
            if !shown {
                let mut text = failure.message().to_owned();
                if let Some(reply) = failure.reply() {
                    let _ = write!(text, "; the server said: {reply}");
                }
                row(f, "failure", &text)?;
            }
        }
        Ok(())
    }

    fn fmt_connection(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(address) = &self.address else {
            return Ok(());
        };
        let mut text = address.ip().to_string();
        let steps = [
            ("in", self.timings.connect),
            ("greeting after", self.timings.greeting),
            ("TLS handshake", self.timings.tls),
            ("ready after", self.timings.ready),
            ("login", self.timings.login),
        ];
        for (step, duration) in steps {
            if let Some(duration) = duration {
                let separator = if step == "in" { "" } else { "," };
                let _ = write!(text, "{separator} {step} {}", time(duration));
            }
        }
        row(f, "connected", &text)
    }

    fn fmt_login(&self, f: &mut fmt::Formatter<'_>, user: Option<&str>) -> fmt::Result {
        let offered =
            |capabilities: &Option<Capabilities>| capabilities.as_ref().map(Capabilities::auth);
        let list = |mechanisms: Option<Vec<String>>| match mechanisms {
            Some(mechanisms) if !mechanisms.is_empty() => Some(mechanisms.join(", ")),
            _ => None,
        };
        let clear = list(offered(&self.before_tls));
        let inside = list(offered(&self.inside_tls));
        let mut text = match (&clear, &inside) {
            (None, None) if self.before_tls.is_none() && self.inside_tls.is_none() => return Ok(()),
            (None, None) => NO_LOGIN.to_owned(),
            (None, Some(inside)) => format!("{inside}, inside TLS only"),
            (Some(clear), None) if self.inside_tls.is_some() => {
                format!("{clear} in clear, and none inside TLS")
            }
            (Some(clear), None) => format!("{clear} in clear"),
            (Some(clear), Some(inside)) if clear == inside => {
                format!("{inside}, in clear and inside TLS")
            }
            (Some(clear), Some(inside)) => format!("{inside} inside TLS, {clear} in clear"),
        };
        if let (Some(user), Some(mechanism)) = (user, self.login) {
            let _ = write!(text, "; {user} logged in with {mechanism}");
        } else if user.is_some()
            && text != NO_LOGIN
            && self
                .failure
                .as_ref()
                .is_none_or(|failure| failure.phase() != crate::Phase::Auth)
        {
            text += "; not tried";
        }
        row(f, "login", &text)
    }

    fn fmt_tls(&self, f: &mut fmt::Formatter<'_>, earlier: &[Port]) -> fmt::Result {
        let name = |version: &Version| version.version.to_string();
        let accepted: Vec<_> = self
            .versions
            .iter()
            .filter(|version| version.is_accepted())
            .map(name)
            .collect();
        let refused: Vec<_> = self
            .versions
            .iter()
            .filter(|version| !version.is_accepted())
            .map(name)
            .collect();
        let mut text = match (&accepted[..], &refused[..]) {
            ([], []) => String::new(),
            ([], refused) => format!("neither {}", refused.join(" nor ")),
            (accepted, []) => accepted.join(" and "),
            (accepted, refused) => {
                format!("{}, not {}", accepted.join(" and "), refused.join(" and "))
            }
        };
        if let Some(tls) = &self.tls {
            if text.is_empty() {
                text.clone_from(&tls.version);
            }
            let _ = write!(text, "; {}", tls.cipher);
            if let Some(group) = &tls.key_exchange {
                let _ = write!(text, ", {group}");
            }
        }
        if !text.is_empty() {
            row(f, "TLS", &text)?;
        }
        let Some(TlsInfo {
            chain,
            verified_by,
            not_verified_reason,
            ..
        }) = &self.tls
        else {
            return Ok(());
        };
        let same_chain = |port: &&Port| port.tls.as_ref().is_some_and(|tls| tls.chain == *chain);
        if let Some(Port { number, .. }) = earlier.iter().find(same_chain) {
            let usability = if not_verified_reason.is_some() {
                "NOT verified"
            } else {
                "verified"
            };
            return row(f, "chain", &format!("as on port {number}: {usability}"));
        }
        for (index, certificate) in chain.iter().enumerate() {
            row(
                f,
                if index == 0 { "chain" } else { "" },
                &format!("{index} {}", certificate_words(certificate)),
            )?;
        }
        match (verified_by, not_verified_reason) {
            (_, Some(failure)) => row(f, "trust", &format!("NOT verified: {failure}")),
            (Some(anchor), None) => row(f, "trust", &format!("verified by {anchor}")),
            (None, None) => Ok(()),
        }
    }
}

fn certificate_words(certificate: &Certificate) -> String {
    let Certificate {
        subject,
        issuer,
        names,
        not_after,
        ..
    } = certificate;
    let mut text = subject.clone();
    if !names.is_empty() {
        let shown: Vec<_> = names.iter().take(NAMES).map(String::as_str).collect();
        let _ = write!(text, ", for {}", shown.join(", "));
        if names.len() > NAMES {
            let _ = write!(text, " and {} more", names.len() - NAMES);
        }
    }
    let (now, until) = (SystemTime::now(), certificate.not_after_text());
    let _ = match now < *not_after {
        true => write!(
            text,
            "; expires {until} (in {})",
            date::between(now, *not_after)
        ),
        false => write!(
            text,
            "; EXPIRED {until} ({} ago)",
            date::between(*not_after, now)
        ),
    };
    if certificate.is_self_issued() {
        text += "; self-signed";
    } else {
        let _ = write!(text, "; issued by {issuer}");
    }
    text
}

fn keywords(offered: &Capabilities) -> String {
    let mut text: Vec<String> = Vec::new();
    for keyword in offered.keywords() {
        let word = format!("{} {}", keyword.name, keyword.parameters)
            .trim_end()
            .to_owned();
        // AUTH occurs twice if the server offers its obsolete form too.
        if !text.contains(&word) {
            text.push(word);
        }
    }
    if text.is_empty() {
        "no extensions".into()
    } else {
        text.join(", ")
    }
}

/// Writes a label and a text.
fn row(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    wrap(
        f,
        format!("  {label:<width$}", width = INDENT - 2),
        INDENT,
        text,
    )
}

fn paragraph(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    wrap(f, String::new(), 0, text)
}

/// Writes words, wrapped at blanks.
fn wrap(f: &mut fmt::Formatter<'_>, mut line: String, indent: usize, text: &str) -> fmt::Result {
    let mut is_new = true;
    for word in printable(text).split_whitespace() {
        if !is_new && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            line = " ".repeat(indent);
            is_new = true;
        }
        if !is_new {
            line.push(' ');
        }
        line += word;
        is_new = false;
    }
    writeln!(f, "{line}")
}

fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

fn rounded(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if amount < 1000.0 {
            return format!("{amount:.0} {unit}");
        }
        amount /= 1000.0;
    }
    format!("{amount:.0} TB")
}
