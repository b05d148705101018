//! The envelope: handles MAIL and RCPT.

use std::borrow::Cow;
use std::collections::HashSet;

use super::ServerSession;
use crate::delivery::Notify;

#[derive(Default)]
pub(super) struct Transaction {
    pub(super) reverse_path: Option<String>,
    pub(super) parameters: Vec<String>,
    is_utf8: bool,
    pub(super) is_prdr: bool,
    pub(super) recipients: Vec<String>,
    domains: HashSet<String>,
    pub(super) recipient_parameters: Vec<Vec<String>>,
}

impl ServerSession {
    pub(super) fn mail(&mut self, argument: &str) -> &'static str {
        let settings = &self.server.settings;
        if self.helo.is_none() {
            return "503 5.5.1 Say EHLO or HELO first";
        }
        if settings.require_login && self.login.is_none() {
            return "530 5.7.0 Authentication required";
        }
        if self.transaction.is_some() {
            return "503 5.5.1 Sender already given";
        }
        let Some((path, parameters)) = path(argument, "FROM:") else {
            return "501 5.5.4 Syntax: MAIL FROM:<address>";
        };
        let mut transaction = Transaction {
            reverse_path: (!path.is_empty()).then(|| path.to_string()),
            parameters: parameters.clone().map(String::from).collect(),
            ..Transaction::default()
        };
        for parameter in parameters {
            let (keyword, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match keyword.to_ascii_uppercase().as_str() {
                _ if !self.is_extended => return "555 5.5.4 Parameters need EHLO",
                "SIZE" if self.server.offers("SIZE") => {
                    match (value.parse::<u64>(), settings.max_size) {
                        (Err(_), _) => return "501 5.5.4 SIZE is not a number",
                        (Ok(size), Some(max)) if size > max => {
                            return "552 5.3.4 Message size exceeds fixed limit";
                        }
                        _ => {}
                    }
                }
                "BODY"
                    if value.eq_ignore_ascii_case("BINARYMIME")
                        && self.offers_extra("BINARYMIME") => {}
                "BODY" if self.server.offers("8BITMIME") => {
                    if !["7BIT", "8BITMIME"]
                        .iter()
                        .any(|body| value.eq_ignore_ascii_case(body))
                    {
                        return "501 5.5.4 BODY is neither 7BIT nor 8BITMIME";
                    }
                }
                "PRDR" if value.is_empty() && settings.prdr => transaction.is_prdr = true,
                "SMTPUTF8" if value.is_empty() && self.server.offers("SMTPUTF8") => {
                    transaction.is_utf8 = true
                }
                "AUTH" if self.offers_auth() => {}
                "RET" if self.offers_extra("DSN") && matches!(value, "FULL" | "HDRS") => {}
                "ENVID" if self.offers_extra("DSN") && is_xtext(value) && value.len() <= 100 => {}
                "BY" if self.offers_extra("DELIVERBY") => {}
                "HOLDFOR" | "HOLDUNTIL" if self.offers_extra("FUTURERELEASE") => {}
                "MT-PRIORITY" if self.offers_extra("MT-PRIORITY") => {}
                "REQUIRETLS" if self.offers_extra("REQUIRETLS") && value.is_empty() => {}
                _ => return "555 5.5.4 Unsupported parameter",
            }
        }
        if !path.is_empty() && !is_mailbox(path) {
            return "501 5.1.7 Bad sender address syntax";
        }
        if !path.is_ascii() && !transaction.is_utf8 {
            return "550 5.6.7 A non-ASCII address needs SMTPUTF8";
        }
        if self
            .limit("MAILMAX")
            .is_some_and(|max| self.transactions_started >= max)
        {
            return "452 4.5.3 Too many messages";
        }
        self.transactions_started += 1;
        self.transaction = Some(transaction);
        "250 2.1.0 Ok"
    }

    pub(super) fn rcpt(&mut self, argument: &str) -> Cow<'static, str> {
        let offers_dsn = self.offers_extra("DSN");
        let (rcpt_max, domain_max) = (self.limit("RCPTMAX"), self.limit("RCPTDOMAINMAX"));
        let Some(transaction) = &mut self.transaction else {
            return "503 5.5.1 Say MAIL first".into();
        };
        let Some((path, parameters)) = path(argument, "TO:") else {
            return "501 5.5.4 Syntax: RCPT TO:<address>".into();
        };
        for parameter in parameters.clone() {
            match parameter.split_once('=') {
                Some(("NOTIFY", value)) if offers_dsn && value.parse::<Notify>().is_ok() => {}
                Some(("ORCPT", value)) if offers_dsn && value.contains(';') && is_xtext(value) => {}
                _ => return "555 5.5.4 Unsupported parameter".into(),
            }
        }
        // `postmaster` without a domain is allowed (RFC 5321, 4.1.1.3).
        if !is_mailbox(path) && !path.eq_ignore_ascii_case("postmaster") {
            return "501 5.1.3 Bad recipient address syntax".into();
        }
        if !path.is_ascii() && !transaction.is_utf8 {
            return "550 5.6.7 A non-ASCII address needs SMTPUTF8".into();
        }
        let refused = &self.server.settings.refused;
        if let Some((_, reply)) = refused
            .iter()
            .find(|(address, _)| address.eq_ignore_ascii_case(path))
        {
            return reply.clone().into();
        }
        let domain = path
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let is_new = !transaction.domains.contains(&domain);
        if rcpt_max.is_some_and(|max| transaction.recipients.len() >= max)
            || domain_max.is_some_and(|max| is_new && transaction.domains.len() >= max)
        {
            return "452 4.5.3 Too many recipients".into();
        }
        transaction.domains.insert(domain);
        transaction.recipients.push(path.to_string());
        transaction
            .recipient_parameters
            .push(parameters.map(String::from).collect());
        "250 2.1.5 Ok".into()
    }
}

/// Splits `FROM:<path> parameters` into the path without its brackets and the parameters.
fn path<'a>(
    argument: &'a str,
    keyword: &str,
) -> Option<(&'a str, impl Iterator<Item = &'a str> + Clone)> {
    let (start, rest) = argument.split_at_checked(keyword.len())?;
    if !start.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest.strip_prefix('<')?;
    let mut in_quotes = false;
    let mut is_escaped = false;
    let end = rest.find(|c| {
        let is_end = c == '>' && !in_quotes;
        in_quotes ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && in_quotes && !is_escaped;
        is_end
    })?;
    let parameters = &rest[end + 1..];
    (parameters.is_empty() || parameters.starts_with(' '))
        .then(|| (&rest[..end], parameters.split_ascii_whitespace()))
}

/// RFC 3461, 4: printable ASCII without `=`, and two upper-case hexadecimal digits after each `+`.
fn is_xtext(text: &str) -> bool {
    let is_hex = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'A'..=b'F');
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'=')
        && text.split('+').skip(1).all(|rest| {
            rest.as_bytes()
                .get(..2)
                .is_some_and(|digits| digits.iter().all(is_hex))
        })
}

fn is_mailbox(path: &str) -> bool {
    path.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains(' ')
    })
}
