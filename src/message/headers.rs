//! Checks the headers of a message of mail-builder and reads the envelope from them.

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

/// A list of headers in mail-builder's form.
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

/// Repairs the headers: writes names as mail-builder does, removes fields that have no value but
/// must have one, and leaves one of each field that a message has at most once. The last one
/// counts; lists of recipients and of reply addresses are merged.
pub(super) fn repair<'x>(headers: &mut Vec<(Cow<'x, str>, HeaderType<'x>)>) {
    headers.retain(|(name, value)| {
        let is_list = matches!(
            value,
            HeaderType::Address(_) | HeaderType::MessageId(_) | HeaderType::URL(_)
        );
        has_value(value) || !is_list && !section::must_have_value(name)
    });
    normalize_names(headers);
    let mut merged: Vec<(Cow<'x, str>, HeaderType<'x>)> = Vec::with_capacity(headers.len());
    // The index of each field that a message has at most once.
    let mut indexes = HashMap::new();
    for (name, value) in headers.drain(..) {
        let before =
            section::unique_field_name(&name).and_then(|known| match indexes.entry(known) {
                Entry::Occupied(place) => merged.get_mut(*place.get()),
                Entry::Vacant(place) => {
                    place.insert(merged.len());
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
            (_, value) => merged.push((name, value)),
        }
    }
    *headers = merged;
}

/// Whether the field lists the recipients of the message or of a reply.
fn is_list(name: &str) -> bool {
    matches!(name, "To" | "Cc" | "Reply-To")
}

/// Removes the angle brackets of identifiers, which mail-builder adds itself, removes Bcc, and
/// checks the rest.
///
/// # Errors
///
/// The headers contain something that no message may have.
pub(super) fn check_message<'x>(headers: &mut Vec<(Cow<'x, str>, HeaderType<'x>)>) -> Result<()> {
    headers.retain(|(name, _)| !section::is_bcc(name));
    repair_ids(headers)?;
    check(headers)?;
    check_once(headers)?;
    let count = |name: &str| {
        headers
            .iter()
            .filter(|(header, _)| header == name)
            .map(|(_, value)| count_addresses(value))
            .sum()
    };
    let (authors, senders): (usize, usize) = (count("From"), count("Sender"));
    match (authors, senders) {
        (2.., 0) => Err(section::too_many_addresses("", "From", authors)),
        (_, 2..) => Err(section::too_many_addresses("", "Sender", senders)),
        _ => Ok(()),
    }
}

/// Writes field names as mail-builder does: it looks for some fields in exactly one spelling, and
/// adds those that it does not find.
fn normalize_names(headers: &mut Headers<'_>) {
    for (name, _) in headers {
        // mail-builder compares some names by pointer, so a name with the right spelling is kept.
        if let Some(known) = section::unique_field_name(name)
            && name != known
        {
            *name = known.into();
        }
    }
}

fn check_once(headers: &Headers<'_>) -> Result<()> {
    for (at, (name, _)) in headers.iter().enumerate() {
        if section::unique_field_name(name).is_some()
            && headers[..at].iter().any(|(before, _)| before == name)
        {
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

/// The number of addresses in a field.
fn count_addresses(value: &HeaderType<'_>) -> usize {
    match value {
        HeaderType::Address(mailboxes) => {
            let mut found = Vec::new();
            collect_addresses(mailboxes, &mut found);
            found.len()
        }
        HeaderType::Raw(raw) => section::count_addresses(raw.raw.as_bytes()),
        _ => 0,
    }
}

/// Repairs identifiers: mail-builder writes the angle brackets itself (RFC 5322, 3.6.4; RFC 2045,
/// 7).
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

/// Splits identifiers: `a@b`, `<a@b>`, or several of them, as in the message that is answered.
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

/// Repairs and checks the headers of a part and of the parts in it.
pub(super) fn repair_and_check_part(part: &mut MimePart<'_>) -> Result<()> {
    normalize_names(&mut part.headers);
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

/// Whether content of this type has header fields of its own, which must not be encoded (RFC 2045,
/// 6.4; RFC 2046, 5.2.1; RFC 6532, 3.5).
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

/// The text of a field that consists of a token and parameters.
pub(super) fn text_of<'a>(value: &'a HeaderType<'_>) -> Option<&'a str> {
    match value {
        HeaderType::ContentType(content_type) => Some(&content_type.c_type),
        HeaderType::Raw(raw) => Some(&raw.raw),
        HeaderType::Text(text) => Some(&text.text),
        _ => None,
    }
}

/// Whether the text is a media type such as `text/plain`, with or without parameters (RFC 2045,
/// 5.1).
fn is_media_type(text: &str) -> bool {
    let (media_type, rest) = text.split_once(';').unwrap_or((text, ""));
    let is_known = media_type
        .trim()
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    is_known && parameters(rest).is_some()
}

/// Parses parameters such as `charset=utf-8; name="a; b"` into names and unquoted values.
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

/// Moves parameters that were given in the text of a type into mail-builder's list, since
/// mail-builder would write some of them twice.
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

/// Whether a header of the part, or of the parts in it, has bytes beyond ASCII.
pub(super) fn part_has_utf8(part: &MimePart<'_>) -> bool {
    let inner = match &part.contents {
        BodyPart::Multipart(parts) => parts.iter().any(part_has_utf8),
        _ => false,
    };
    inner || have_utf8(&part.headers)
}

/// Writes a field that is not part of a builder's message. A value that is folded already stays as
/// it is.
///
/// # Errors
///
/// As for the headers of a built message.
pub(super) fn write_field(name: &str, value: &str) -> Result<Vec<u8>> {
    // RFC 5322, 2.2.3.
    let unfolded = value.replace("\r\n ", " ").replace("\r\n\t", "\t");
    let is_folded =
        unfolded.len() < value.len() && !value.lines().any(|line| line.trim().is_empty());
    let header = match unfolded.is_ascii() {
        true => HeaderType::Raw(unfolded.into()),
        false => HeaderType::Text(unfolded.into()),
    };
    let header = [(Cow::Borrowed(name), header)];
    check(&header)?;
    if is_folded && value.is_ascii() {
        return Ok(format!("{name}: {value}\r\n").into_bytes());
    }
    let mut field = format!("{name}: ").into_bytes();
    header[0].1.write_header(&mut field, name.len() + 2);
    Ok(field)
}

/// Checks that no name or value can break out of its line.
///
/// mail-builder silently drops or folds a line break. Here it is an error, since it got there by
/// accident or by attack.
fn check(headers: &Headers<'_>) -> Result<()> {
    for (name, value) in headers {
        // RFC 5322, 3.6.8: printable ASCII except the colon.
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
                        "the {name} header has an invalid parameter name: {}",
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
            return Err(not_addresses(name));
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

fn not_addresses(name: &str) -> Error {
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
                .map_err(|error| Error::from(error).context(format!("the {name} header")))
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

/// Whether the text cannot terminate the address early, so that another one could follow (RFC 5322,
/// 3.4). mail-builder writes it unchanged.
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

/// Writes the domains of addresses as A-labels if the rest of the address is ASCII: such a message
/// needs no server with SMTPUTF8, neither this one nor any on the way. Other addresses get U-labels
/// (RFC 6532, 3.2).
pub(super) fn encode_domains(headers: &mut [(Cow<'_, str>, HeaderType<'_>)]) {
    for (_, value) in headers {
        if let HeaderType::Address(mailboxes) = value {
            encode_domain(mailboxes);
        }
    }
}

fn encode_domain(mailboxes: &mut Mailboxes<'_>) {
    match mailboxes {
        Mailboxes::Address(mailbox) => {
            if let Ok(address) = Address::lenient(&*mailbox.email)
                && let Cow::Owned(converted) =
                    address.to_ascii().unwrap_or_else(|| address.to_unicode())
            {
                mailbox.email = converted.to_string().into();
            }
        }
        Mailboxes::Group(group) => group.addresses.iter_mut().for_each(encode_domain),
        Mailboxes::List(list) => list.iter_mut().for_each(encode_domain),
    }
}

/// The envelope according to the headers: from Sender or else the first address in From, to all
/// addresses in To, Cc and Bcc.
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
    Ok(Envelope::new(Address::new(sender)?, recipients)?)
}

/// All addresses in the headers of this name, including those in groups.
fn mailboxes_of<'a>(headers: &'a Headers<'_>, name: &str) -> Result<Vec<&'a str>> {
    let mut found = Vec::new();
    for (_, value) in headers
        .iter()
        .filter(|(header, _)| header.eq_ignore_ascii_case(name))
    {
        match value {
            HeaderType::Address(mailboxes) => collect_addresses(mailboxes, &mut found),
            _ => return Err(not_addresses(name)),
        }
    }
    Ok(found)
}

fn collect_addresses<'a>(mailboxes: &'a Mailboxes<'_>, found: &mut Vec<&'a str>) {
    match mailboxes {
        Mailboxes::Address(mailbox) => found.push(&mailbox.email),
        Mailboxes::Group(group) => group
            .addresses
            .iter()
            .for_each(|inner| collect_addresses(inner, found)),
        Mailboxes::List(list) => list
            .iter()
            .for_each(|inner| collect_addresses(inner, found)),
    }
}
