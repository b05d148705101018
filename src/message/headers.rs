//! The headers of mail-builder's message: checked, and read for the envelope.

use std::borrow::Cow;

use mail_builder::headers::address::Address as Mailboxes;
use mail_builder::headers::{Header, HeaderType};
use mail_builder::mime::{BodyPart, MimePart};

use crate::text::quoted;
use crate::{Address, Envelope, Error, Result};

/// A list of headers as mail-builder has it.
type Headers<'x> = [(Cow<'x, str>, HeaderType<'x>)];

/// Checks the headers of a part and of the parts in it.
pub(super) fn check_part(part: &MimePart<'_>) -> Result<()> {
    check(&part.headers)?;
    match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().try_for_each(check_part),
        _ => Ok(()),
    }
}

/// Whether a header of a part, or of the parts in it, has bytes beyond ASCII on the wire (RFC 6532, 3.7).
pub(super) fn part_has_utf8(part: &MimePart<'_>) -> bool {
    let mut written = Vec::new();
    part.headers.iter().for_each(|(_, value)| value.write_header(&mut written, 0));
    let inner = match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().any(part_has_utf8),
        _ => false,
    };
    inner || !written.is_ascii()
}

/// Checks headers: no name or value may break out of its line.
///
/// mail-builder drops or folds a line break in silence; here it is an error, since what brought it was an accident or an attack.
pub(super) fn check(headers: &Headers<'_>) -> Result<()> {
    for (name, value) in headers {
        // RFC 5322, 3.6.8: printable ASCII but the colon.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return Err(Error::request(format!("{} is not the name of a header", quoted(name)))
                .with_hint("A name is made of letters, digits and hyphens, without the colon."));
        }
        check_value(name, value)?;
    }
    Ok(())
}

fn check_value(name: &str, value: &HeaderType<'_>) -> Result<()> {
    let check = |text: &str| check_text(name, text);
    match value {
        HeaderType::Address(mailboxes) => check_mailboxes(name, mailboxes),
        HeaderType::Date(_) => Ok(()),
        HeaderType::MessageId(ids) => ids.id.iter().try_for_each(|id| check(id)),
        HeaderType::Raw(raw) => check(&raw.raw),
        HeaderType::Text(text) => check(&text.text),
        HeaderType::URL(urls) => urls.url.iter().try_for_each(|url| check(url)),
        HeaderType::ContentType(content_type) => {
            check(&content_type.c_type)?;
            content_type.attributes.iter().try_for_each(|(key, value)| check(key).and_then(|()| check(value)))
        }
    }
}

fn check_mailboxes(name: &str, mailboxes: &Mailboxes<'_>) -> Result<()> {
    match mailboxes {
        Mailboxes::Address(mailbox) => {
            check_text(name, mailbox.name.as_deref().unwrap_or_default())?;
            check_text(name, &mailbox.email)?;
            if is_one_address(&mailbox.email) {
                return Ok(());
            }
            let message = format!("the {name} header has an address that would end early: {}", quoted(&mailbox.email));
            Err(Error::request(message).with_hint("Give each mailbox by itself, and its name apart."))
        }
        Mailboxes::Group(group) => {
            check_text(name, group.name.as_deref().unwrap_or_default())?;
            group.addresses.iter().try_for_each(|inner| check_mailboxes(name, inner))
        }
        Mailboxes::List(list) => list.iter().try_for_each(|inner| check_mailboxes(name, inner)),
    }
}

/// Nothing in it ends the address, so that another one could follow (RFC 5322, 3.4): mail-builder writes it as it is.
fn is_one_address(email: &str) -> bool {
    let (mut in_quotes, mut is_escaped) = (false, false);
    for c in email.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => in_quotes = !in_quotes,
            '<' | '>' | ',' | ';' | '(' | ')' if !in_quotes => return false,
            _ => {}
        }
    }
    !in_quotes && !is_escaped
}

fn check_text(name: &str, text: &str) -> Result<()> {
    let what = match text.bytes().find(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        None => return Ok(()),
        Some(0) => "a NUL",
        Some(_) => "a line break",
    };
    Err(Error::request(format!("the {name} header contains {what}: {}", quoted(text)))
        .with_hint("A header is one line; long ones are folded for you."))
}

/// Writes the domains of addresses as A-labels where all the rest is ASCII: such a message needs no server with SMTPUTF8, neither
/// this one nor any on the way.
pub(super) fn spell_domains_in_ascii(headers: &mut [(Cow<'_, str>, HeaderType<'_>)]) {
    for (_, value) in headers {
        if let HeaderType::Address(mailboxes) = value {
            spell_in_ascii(mailboxes);
        }
    }
}

fn spell_in_ascii(mailboxes: &mut Mailboxes<'_>) {
    match mailboxes {
        Mailboxes::Address(mailbox) => {
            if let Ok(address) = Address::lenient(&*mailbox.email)
                && let Some(Cow::Owned(ascii)) = address.to_ascii()
            {
                mailbox.email = ascii.to_string().into();
            }
        }
        Mailboxes::Group(group) => group.addresses.iter_mut().for_each(spell_in_ascii),
        Mailboxes::List(list) => list.iter_mut().for_each(spell_in_ascii),
    }
}

/// The envelope that the headers speak of: from Sender or else the first From, to everyone in To, Cc and Bcc.
pub(super) fn envelope(headers: &Headers<'_>) -> Result<Envelope> {
    let sender = match mailboxes_of(headers, "Sender")?.first() {
        Some(sender) => Some(*sender),
        None => mailboxes_of(headers, "From")?.first().copied(),
    };
    let Some(sender) = sender else {
        return Err(Error::request("the message has no sender")
            .with_hint("Set its From header, or give it an envelope; one without a sender is for notifications."));
    };
    let mut recipients = Vec::new();
    for name in ["To", "Cc", "Bcc"] {
        for mailbox in mailboxes_of(headers, name)? {
            recipients.push(Address::new(mailbox)?);
        }
    }
    Envelope::new(Address::new(sender)?, recipients)
}

/// All addresses in the headers of that name, groups opened.
fn mailboxes_of<'a>(headers: &'a Headers<'_>, name: &str) -> Result<Vec<&'a str>> {
    let mut found = Vec::new();
    for (_, value) in headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name)) {
        match value {
            HeaderType::Address(mailboxes) => collect(mailboxes, &mut found),
            _ => {
                return Err(Error::request(format!("the {name} header is text, not a list of addresses"))
                    .with_hint("Build it from addresses, or give the message an envelope."));
            }
        }
    }
    Ok(found)
}

fn collect<'a>(mailboxes: &'a Mailboxes<'_>, found: &mut Vec<&'a str>) {
    match mailboxes {
        Mailboxes::Address(mailbox) => found.push(&mailbox.email),
        Mailboxes::Group(group) => group.addresses.iter().for_each(|inner| collect(inner, found)),
        Mailboxes::List(list) => list.iter().for_each(|inner| collect(inner, found)),
    }
}
