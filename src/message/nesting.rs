//! Limits the nesting of parts and addresses, since they are read, written and dropped by
//! recursion.

use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as Mailboxes;
use mail_builder::mime::{BodyPart, MimePart};

use crate::{Error, Result};

/// The maximum depth of parts within parts, and of lists and groups within lists.
const MAX_DEPTH: usize = 100;

/// Checks the nesting of a message, and drops, iteratively, a message nested too deep.
///
/// # Errors
///
/// Parts or addresses are nested more than [`MAX_DEPTH`] deep.
pub(super) fn check(mut builder: Box<MessageBuilder<'_>>) -> Result<Box<MessageBuilder<'_>>> {
    let Some(what) = too_deep(&builder) else {
        return Ok(builder);
    };
    take_apart(&mut builder);
    Err(
        Error::request(format!("{what} are nested more than {MAX_DEPTH} deep"))
            .with_hint("Give addresses as one list, and parts side by side."),
    )
}

/// Describes what is nested too deep, if anything is.
fn too_deep(builder: &MessageBuilder<'_>) -> Option<&'static str> {
    let mut parts: Vec<(&MimePart<'_>, usize)> = Vec::new();
    parts.extend(builder.body.iter().map(|part| (part, 1)));
    parts.extend(builder.html_body.iter().map(|part| (part, 1)));
    parts.extend(builder.text_body.iter().map(|part| (part, 1)));
    parts.extend(builder.attachments.iter().flatten().map(|part| (part, 1)));
    let mut headers: Vec<_> = builder.headers.iter().collect();
    while let Some((part, depth)) = parts.pop() {
        if depth > MAX_DEPTH {
            return Some("the parts of the message");
        }
        headers.extend(&part.headers);
        if let BodyPart::Multipart(inner) = &part.contents {
            parts.extend(inner.iter().map(|part| (part, depth + 1)));
        }
    }
    let mut lists: Vec<(&Mailboxes<'_>, usize)> = Vec::new();
    for (_, value) in headers {
        if let HeaderType::Address(mailboxes) = value {
            lists.push((mailboxes, 0));
        }
        while let Some((mailboxes, depth)) = lists.pop() {
            if depth > MAX_DEPTH {
                return Some("the addresses of a header");
            }
            match mailboxes {
                Mailboxes::Address(_) => {}
                Mailboxes::Group(group) => {
                    lists.extend(group.addresses.iter().map(|inner| (inner, depth + 1)))
                }
                Mailboxes::List(list) => lists.extend(list.iter().map(|inner| (inner, depth + 1))),
            }
        }
    }
    None
}

/// Drops level by level what would otherwise be dropped by recursion.
fn take_apart(builder: &mut MessageBuilder<'_>) {
    let mut headers = std::mem::take(&mut builder.headers);
    let mut parts: Vec<MimePart<'_>> = builder.attachments.take().unwrap_or_default();
    parts.extend(builder.body.take());
    parts.extend(builder.html_body.take());
    parts.extend(builder.text_body.take());
    while let Some(mut part) = parts.pop() {
        headers.append(&mut part.headers);
        if let BodyPart::Multipart(inner) = &mut part.contents {
            parts.append(inner);
        }
    }
    let addresses = headers.into_iter().filter_map(|(_, value)| match value {
        HeaderType::Address(mailboxes) => Some(mailboxes),
        _ => None,
    });
    let mut lists: Vec<_> = addresses.collect();
    while let Some(mailboxes) = lists.pop() {
        match mailboxes {
            Mailboxes::Address(_) => {}
            Mailboxes::Group(mut group) => lists.append(&mut group.addresses),
            Mailboxes::List(mut list) => lists.append(&mut list),
        }
    }
}
