//! The headers of mail-builder's message: checked, and read for the envelope.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use mail_builder::headers::address::Address as Mailboxes;
use mail_builder::headers::{Header, HeaderType};
use mail_builder::mime::{BodyPart, MimePart};

use super::section;
use crate::address::is_invisible;
use crate::text::quoted;
use crate::{Address, Envelope, Error, Result};

/// A list of headers as mail-builder has it.
type Headers<'x> = [(Cow<'x, str>, HeaderType<'x>)];

/// The fields that are lists of addresses (RFC 5322, 3.6.2, 3.6.3 and 3.6.6).
const ADDRESSES: [&str; 11] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
];

/// Makes of the headers what a message may have: names as mail-builder spells them, no field
/// without a value where there must be one, and one of each field of which a message has at most
/// one. Of those that were set twice, the last counts; lists of recipients and of addresses for
/// replies become one.
pub(super) fn repair<'x>(headers: &mut Vec<(Cow<'x, str>, HeaderType<'x>)>) {
    headers.retain(|(name, value)| {
        let is_list = matches!(
            value,
            HeaderType::Address(_) | HeaderType::MessageId(_) | HeaderType::URL(_)
        );
        has_value(value) || !is_list && !section::must_have_value(name)
    });
    spell_as_mail_builder_does(headers);
    let mut united: Vec<(Cow<'x, str>, HeaderType<'x>)> = Vec::with_capacity(headers.len());
    // Where each field stands of which a message has at most one.
    let mut places = HashMap::new();
    for (name, value) in headers.drain(..) {
        let before = section::once(&name).and_then(|known| match places.entry(known) {
            Entry::Occupied(place) => united.get_mut(*place.get()),
            Entry::Vacant(place) => {
                place.insert(united.len());
                None
            }
        });
        match (before, value) {
            (Some((_, HeaderType::Address(list))), HeaderType::Address(more)) if is_list(&name) => {
                let mut all = match std::mem::replace(list, Mailboxes::List(Vec::new())) {
                    Mailboxes::List(all) => all,
                    one => vec![one],
                };
                match more {
                    Mailboxes::List(more) => all.extend(more),
                    one => all.push(one),
                }
                *list = Mailboxes::List(all);
            }
            (Some((_, before)), value) if !is_list(&name) => *before = value,
            (_, value) => united.push((name, value)),
        }
    }
    *headers = united;
}

/// To whom a message or an answer to it goes.
fn is_list(name: &str) -> bool {
    matches!(name, "To" | "Cc" | "Reply-To")
}

/// Makes identifiers out of those in brackets, which mail-builder adds, takes Bcc out, and checks
/// what is left.
///
/// # Errors
///
/// What no message may have.
pub(super) fn check_message<'x>(headers: &mut Vec<(Cow<'x, str>, HeaderType<'x>)>) -> Result<()> {
    headers.retain(|(name, _)| !section::is_hidden(name));
    repair_ids(headers)?;
    check(headers)?;
    check_once(headers)?;
    let count = |name: &str| {
        headers
            .iter()
            .filter(|(header, _)| header == name)
            .map(|(_, value)| addresses(value))
            .sum()
    };
    let (authors, senders): (usize, usize) = (count("From"), count("Sender"));
    match (authors, senders) {
        (2.., 0) => Err(section::too_many_addresses("", "From", authors)),
        (_, 2..) => Err(section::too_many_addresses("", "Sender", senders)),
        _ => Ok(()),
    }
}

/// mail-builder looks for some fields in exactly one spelling, and adds those that it does not
/// find.
fn spell_as_mail_builder_does(headers: &mut Headers<'_>) {
    for (name, _) in headers {
        // A name that is spelt so already stays where it is: some are known by their address.
        if let Some(known) = section::once(name)
            && name != known
        {
            *name = known.into();
        }
    }
}

fn check_once(headers: &Headers<'_>) -> Result<()> {
    for (at, (name, _)) in headers.iter().enumerate() {
        if section::once(name).is_some() && headers[..at].iter().any(|(before, _)| before == name) {
            return Err(Error::request(format!("the {name} header is given twice"))
                .with_hint("A message has one at most (RFC 5322, 3.6). Remove the other."));
        }
    }
    Ok(())
}

fn has_value(value: &HeaderType<'_>) -> bool {
    fn has_mailbox(mailboxes: &Mailboxes<'_>) -> bool {
        match mailboxes {
            Mailboxes::Address(_) => true,
            // A group with a name may be empty (RFC 5322, 3.4).
            Mailboxes::Group(group) => {
                group.name.is_some() || group.addresses.iter().any(has_mailbox)
            }
            Mailboxes::List(list) => list.iter().any(has_mailbox),
        }
    }
    match value {
        HeaderType::Address(mailboxes) => has_mailbox(mailboxes),
        HeaderType::MessageId(ids) => ids.id.iter().any(|id| !id.trim().is_empty()),
        HeaderType::Raw(raw) => !raw.raw.trim().is_empty(),
        HeaderType::Text(text) => !text.text.trim().is_empty(),
        HeaderType::URL(urls) => !urls.url.is_empty(),
        HeaderType::Date(_) | HeaderType::ContentType(_) => true,
    }
}

/// How many addresses a field has.
fn addresses(value: &HeaderType<'_>) -> usize {
    match value {
        HeaderType::Address(mailboxes) => {
            let mut found = Vec::new();
            collect(mailboxes, &mut found);
            found.len()
        }
        HeaderType::Raw(raw) => section::count_addresses(raw.raw.as_bytes()),
        _ => 0,
    }
}

/// mail-builder writes identifiers in angle brackets of its own (RFC 5322, 3.6.4; RFC 2045, 7).
fn repair_ids(headers: &mut Headers<'_>) -> Result<()> {
    for (name, value) in headers {
        let HeaderType::MessageId(ids) = value else {
            continue;
        };
        let mut repaired: Vec<Cow<'_, str>> = Vec::with_capacity(ids.id.len());
        for id in &ids.id {
            check_text(name, id)?;
            let is_bad =
                |id: &&str| id.is_empty() || id.contains(['<', ' ']) || id.contains(is_invisible);
            let all = ids_in(id).filter(|all| !all.is_empty() && !all.iter().any(is_bad));
            let all = all.ok_or_else(|| bad_id(name, id))?;
            repaired.extend(all.into_iter().map(|id| Cow::Owned(id.to_owned())));
        }
        let is_list = matches!(&**name, "In-Reply-To" | "References");
        if !is_list && repaired.len() > 1
            || name == "Message-ID" && repaired.iter().any(|id| !id.contains('@'))
        {
            return Err(bad_id(name, &ids.id.join(" ")));
        }
        ids.id = repaired;
    }
    Ok(())
}

/// `a@b`, `<a@b>`, or several of them, as they stand in the message that is answered.
fn ids_in(text: &str) -> Option<Vec<&str>> {
    let mut rest = text.trim();
    if !rest.contains(['<', '>']) {
        return Some(rest.split_whitespace().collect());
    }
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let (id, next) = rest.strip_prefix('<')?.split_once('>')?;
        ids.push(id);
        rest = next.trim_start();
    }
    Some(ids)
}

fn bad_id(name: &str, id: &str) -> Error {
    let message = match name {
        "In-Reply-To" | "References" => format!(
            "the {name} header is not a list of identifiers: {}",
            quoted(id)
        ),
        _ => format!("the {name} header is not one identifier: {}", quoted(id)),
    };
    Error::request(message)
        .with_hint("An identifier looks like 1234@example.org, with no blank in it.")
}

/// The same for a part and the parts in it.
pub(super) fn repair_and_check_part(part: &mut MimePart<'_>) -> Result<()> {
    spell_as_mail_builder_does(&mut part.headers);
    repair_parameters(&mut part.headers);
    repair_ids(&mut part.headers)?;
    check(&part.headers)?;
    check_once(&part.headers)?;
    let media_type = part
        .headers
        .iter()
        .find(|(name, _)| name == "Content-Type")
        .and_then(|(_, value)| text_of(value));
    let encoding = part
        .headers
        .iter()
        .find(|(name, _)| name == "Content-Transfer-Encoding")
        .and_then(|(_, value)| text_of(value));
    if let (Some(media_type), Some(encoding)) = (media_type, encoding)
        && is_composite(media_type)
        && !["7bit", "8bit", "binary"]
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(encoding.trim()))
    {
        let message = format!(
            "a part of type {} cannot be encoded as {}",
            quoted(media_type),
            quoted(encoding)
        );
        return Err(Error::request(message).with_hint(
            "Give its content as it is, and leave the transfer encoding out (RFC 2046, 5.2.1).",
        ));
    }
    match &mut part.contents {
        BodyPart::Multipart(parts) => parts.iter_mut().try_for_each(repair_and_check_part),
        _ => Ok(()),
    }
}

/// Content that has header fields of its own, which no encoding may hide (RFC 2045, 6.4; RFC 2046,
/// 5.2.1; RFC 6532, 3.5).
pub(super) fn is_composite(media_type: &str) -> bool {
    let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
    let starts = |text: &str, prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let kind = kind.trim();
    kind.eq_ignore_ascii_case("multipart")
        || kind.eq_ignore_ascii_case("message") && !starts(subtype, "global")
}

/// What a field says that is a word and parameters.
pub(super) fn text_of<'a>(value: &'a HeaderType<'_>) -> Option<&'a str> {
    match value {
        HeaderType::ContentType(content_type) => Some(&content_type.c_type),
        HeaderType::Raw(raw) => Some(&raw.raw),
        HeaderType::Text(text) => Some(&text.text),
        _ => None,
    }
}

/// `text/plain`, and parameters if there are any (RFC 2045, 5.1).
fn is_media_type(text: &str) -> bool {
    let (media_type, rest) = text.split_once(';').unwrap_or((text, ""));
    let is_known = media_type
        .trim()
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    is_known && parameters(rest).is_some()
}

/// `charset=utf-8; name="a; b"` → what each is called, and its value without quotes.
fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (mut value, mut chars) = (String::new(), after.trim_start().chars());
        if let Some(quoted) = chars.as_str().strip_prefix('"') {
            chars = quoted.chars();
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => value.push(chars.next()?),
                    c => value.push(c),
                }
            }
            rest = chars.as_str().trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(';')?;
            }
        } else {
            let (word, next) = chars
                .as_str()
                .split_once(';')
                .unwrap_or((chars.as_str(), ""));
            value.push_str(word.trim());
            rest = next;
            is_token(&value).then_some(())?;
        }
        is_token(name.trim()).then(|| found.push((name.trim().to_owned(), value)))?;
        rest = rest.trim();
    }
    Some(found)
}

/// Parameters that a type was given as text become those that mail-builder knows of, which would
/// write some of them again.
fn repair_parameters(headers: &mut Headers<'_>) {
    for (_, value) in headers {
        if let HeaderType::ContentType(content_type) = value
            && let Some((media_type, rest)) = content_type.c_type.split_once(';')
            && let Some(given) = parameters(rest)
        {
            let is_new = |(name, _): &(Cow<'_, str>, _)| {
                !given
                    .iter()
                    .any(|(known, _)| known.eq_ignore_ascii_case(name))
            };
            let media_type = media_type.trim().to_owned();
            content_type.attributes.retain(is_new);
            content_type.attributes.splice(
                0..0,
                given
                    .into_iter()
                    .map(|(name, value)| (name.into(), value.into())),
            );
            content_type.c_type = media_type.into();
        }
    }
}

fn is_token(text: &str) -> bool {
    let is_special = |byte| {
        matches!(
            byte,
            b'(' | b')'
                | b'<'
                | b'>'
                | b'@'
                | b','
                | b';'
                | b':'
                | b'\\'
                | b'"'
                | b'/'
                | b'['
                | b']'
                | b'?'
                | b'='
        )
    };
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !is_special(byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

/// Whether a header has bytes beyond ASCII on the wire (RFC 6532, 3.7).
pub(super) fn have_utf8(headers: &Headers<'_>) -> bool {
    let mut written = Vec::new();
    headers
        .iter()
        .for_each(|(_, value)| value.write_header(&mut written, 0));
    !written.is_ascii()
}

/// The same of a part and the parts in it.
pub(super) fn part_has_utf8(part: &MimePart<'_>) -> bool {
    let inner = match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().any(part_has_utf8),
        _ => false,
    };
    inner || have_utf8(&part.headers)
}

/// Checks headers: no name or value may break out of its line.
///
/// mail-builder drops or folds a line break in silence; here it is an error, since what brought it
/// was an accident or an attack.
fn check(headers: &Headers<'_>) -> Result<()> {
    for (name, value) in headers {
        // RFC 5322, 3.6.8: printable ASCII but the colon.
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b':')
        {
            return Err(
                Error::request(format!("{} is not the name of a header", quoted(name)))
                    .with_hint("A name is made of letters, digits and hyphens, without the colon."),
            );
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
            content_type.attributes.iter().try_for_each(|(key, value)| {
                check(key).and_then(|()| check(value))?;
                match is_token(key) {
                    true => Ok(()),
                    false => Err(Error::request(format!(
                        "the {name} header has no parameter {}",
                        quoted(key)
                    ))
                    .with_hint("A parameter's name is made of letters, digits and hyphens.")),
                }
            })
        }
    }?;
    match value {
        HeaderType::Address(_) | HeaderType::Raw(_) => {}
        _ if ADDRESSES.iter().any(|list| list.eq_ignore_ascii_case(name)) => {
            return Err(is_text(name));
        }
        _ => {}
    }
    match text_of(value) {
        Some(text) if name == "Content-Type" && !is_media_type(text) => {
            Err(Error::request(format!(
                "the Content-Type header is not a media type: {}",
                quoted(text)
            ))
            .with_hint(
                "It looks like text/plain, or like application/octet-stream for bytes of any kind.",
            ))
        }
        Some(text)
            if name == "Content-Disposition"
                && !is_token(text.split(';').next().unwrap_or_default().trim()) =>
        {
            Err(Error::request(format!(
                "the Content-Disposition header is not a word: {}",
                quoted(text)
            ))
            .with_hint("It is inline or attachment."))
        }
        Some(text) if name == "Content-Transfer-Encoding" && !is_token(text.trim()) => {
            Err(Error::request(format!(
                "the Content-Transfer-Encoding header is not a word: {}",
                quoted(text)
            ))
            .with_hint("Leave it out: it is chosen by the content."))
        }
        _ => Ok(()),
    }
}

fn is_text(name: &str) -> Error {
    Error::request(format!(
        "the {name} header is text, not a list of addresses"
    ))
    .with_hint("Build it from addresses, or give the message an envelope.")
}

fn check_mailboxes(name: &str, mailboxes: &Mailboxes<'_>) -> Result<()> {
    match mailboxes {
        Mailboxes::Address(mailbox) => {
            check_text(name, mailbox.name.as_deref().unwrap_or_default())?;
            check_text(name, &mailbox.email)?;
            if !is_one_address(&mailbox.email) {
                let message = format!(
                    "the {name} header has an address that would end early: {}",
                    quoted(&mailbox.email)
                );
                return Err(Error::request(message)
                    .with_hint("Give each mailbox by itself, and its name apart."));
            }
            Address::lenient(&*mailbox.email)
                .map(drop)
                .map_err(|error| {
                    let hint = error.hint().unwrap_or_default().to_owned();
                    Error::request(format!("the {name} header: {}", error.message()))
                        .with_hint(hint)
                })
        }
        Mailboxes::Group(group) => {
            check_text(name, group.name.as_deref().unwrap_or_default())?;
            group
                .addresses
                .iter()
                .try_for_each(|inner| check_mailboxes(name, inner))
        }
        Mailboxes::List(list) => list
            .iter()
            .try_for_each(|inner| check_mailboxes(name, inner)),
    }
}

/// Nothing in it ends the address, so that another one could follow (RFC 5322, 3.4): mail-builder
/// writes it as it is.
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
    Err(Error::request(format!(
        "the {name} header contains {what}: {}",
        quoted(text)
    ))
    .with_hint("A header is one line; long ones are folded for you."))
}

/// Writes the domains of addresses as A-labels where all the rest is ASCII: such a message needs no
/// server with SMTPUTF8, neither this one nor any on the way. Other addresses have U-labels (RFC
/// 6532, 3.2).
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
                && let Cow::Owned(spelt) =
                    address.to_ascii().unwrap_or_else(|| address.to_unicode())
            {
                mailbox.email = spelt.to_string().into();
            }
        }
        Mailboxes::Group(group) => group.addresses.iter_mut().for_each(spell_in_ascii),
        Mailboxes::List(list) => list.iter_mut().for_each(spell_in_ascii),
    }
}

/// The envelope that the headers speak of: from Sender or else the first From, to everyone in To,
/// Cc and Bcc.
pub(super) fn envelope(headers: &Headers<'_>) -> Result<Envelope> {
    let sender = match mailboxes_of(headers, "Sender")?.first() {
        Some(sender) => Some(*sender),
        None => mailboxes_of(headers, "From")?.first().copied(),
    };
    let Some(sender) = sender else {
        return Err(Error::request("the message has no sender").with_hint(
            "Set its From header, or give it an envelope; one without a sender is for \
                notifications.",
        ));
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
    for (_, value) in headers
        .iter()
        .filter(|(header, _)| header.eq_ignore_ascii_case(name))
    {
        match value {
            HeaderType::Address(mailboxes) => collect(mailboxes, &mut found),
            _ => return Err(is_text(name)),
        }
    }
    Ok(found)
}

fn collect<'a>(mailboxes: &'a Mailboxes<'_>, found: &mut Vec<&'a str>) {
    match mailboxes {
        Mailboxes::Address(mailbox) => found.push(&mailbox.email),
        Mailboxes::Group(group) => group
            .addresses
            .iter()
            .for_each(|inner| collect(inner, found)),
        Mailboxes::List(list) => list.iter().for_each(|inner| collect(inner, found)),
    }
}
