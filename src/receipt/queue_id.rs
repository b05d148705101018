//! Finds the queue id in the final reply to a message. RFC 5321 does not specify it, so each server
//! has its own form.

use crate::proto::Reply;

/// The queue id in a positive reply of a known form.
pub(super) fn in_reply(reply: &Reply) -> Option<&str> {
    let positive = reply.is_positive();
    let mut lines = reply.lines().iter().filter(|_| positive);
    lines.find_map(|line| in_line(line))
}

fn in_line(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let id = queued_as(&words)
        .or_else(|| with_key(&words, "id="))
        .or_else(|| with_key(&words, "[InternalId="))
        .or_else(|| by_end(&words))?;
    let id = id.trim_matches(['<', '>', '[', ']', ',', ';', '.']);
    (!id.is_empty()).then_some(id)
}

/// Postfix, and many services with the same text.
fn queued_as<'a>(words: &[&'a str]) -> Option<&'a str> {
    words.windows(3).find_map(|three| match three {
        [queued, word, id] if is(queued, "queued") && is(word, "as") && has_digit(id) => Some(*id),
        _ => None,
    })
}

/// Exim (`id=`) and Exchange (`[InternalId=`).
fn with_key<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key))
}

/// Servers whose replies are recognized by their end.
fn by_end<'a>(words: &[&'a str]) -> Option<&'a str> {
    match words {
        // Sendmail and OpenSMTPD.
        [.., id, a, b, c, d]
            if is(a, "message") && is(b, "accepted") && is(c, "for") && is(d, "delivery") =>
        {
            Some(*id).filter(|id| has_digit(id) && !is_status(id))
        }
        // Gmail; the time comes before the id.
        [.., id, "-", "gsmtp"] => Some(id),
        // qmail: the number in its log, after the time.
        [.., ok, _, "qp", id] if is(ok, "ok") => Some(id),
        // Dovecot's LMTP.
        [.., recipient, id, "Saved"] if recipient.starts_with('<') && !is_status(id) => Some(id),
        // Amazon SES: only a long id.
        [ok, id] if is(ok, "ok") && is_long_id(id) => Some(id),
        _ => None,
    }
}

fn is(word: &str, expected: &str) -> bool {
    word.eq_ignore_ascii_case(expected)
}

fn has_digit(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

/// Whether a word begins as an enhanced status code does (RFC 3463), such as `2.0.0`.
fn is_status(word: &str) -> bool {
    let (class, rest) = word.split_once('.').unwrap_or_default();
    class.len() == 1 && has_digit(class) && rest.contains('.')
}

fn is_long_id(word: &str) -> bool {
    let is_in_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    word.len() >= 20 && has_digit(word) && word.bytes().all(is_in_id)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::proto::{Limits, ReplyParser};

    #[test]
    fn the_queue_id_is_found_in_the_replies_of_known_servers() {
        for (lines, id) in [
            // Postfix, alone and after a filter.
            ("250 2.0.0 Ok: queued as 4X1bQ2kYz", Some("4X1bQ2kYz")),
            (
                "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 9F41C20C",
                Some("9F41C20C"),
            ),
            (
                "250 2.0.0 OK: queued as <202611261705.1234@relay.example.org>",
                Some("202611261705.1234@relay.example.org"),
            ),
            ("250 OK id=1rXyZA-0001ab-2C", Some("1rXyZA-0001ab-2C")),
            // Sendmail, and OpenSMTPD before and since 6.4.
            (
                "250 2.0.0 4AQH5xk2012345 Message accepted for delivery",
                Some("4AQH5xk2012345"),
            ),
            (
                "250 2.0.0: 3e2c8a4b Message accepted for delivery",
                Some("3e2c8a4b"),
            ),
            (
                "250 2.0.0 3e2c8a4b Message accepted for delivery",
                Some("3e2c8a4b"),
            ),
            // Exchange.
            (
                "250 2.6.0 <a1@example.org> [InternalId=7344921313283, Hostname=EX1.example.org] \
                 1842 bytes in 0.101, 17.694 KB/sec Queued mail for delivery",
                Some("7344921313283"),
            ),
            (
                "250 2.6.0 <a1@example.org> [InternalId=42] Queued mail for delivery",
                Some("42"),
            ),
            // Gmail.
            (
                "250 2.0.0 OK  1732640712 5b1f17b1804b1-434a5d1f2dcsm34567890e9.23 - gsmtp",
                Some("5b1f17b1804b1-434a5d1f2dcsm34567890e9.23"),
            ),
            (
                "250 Ok 0100018c9f0d1b2a-3c4d5e6f-7a8b-9c0d-1e2f-3a4b5c6d7e8f-000000",
                Some("0100018c9f0d1b2a-3c4d5e6f-7a8b-9c0d-1e2f-3a4b5c6d7e8f-000000"),
            ),
            ("250 ok 1732640712 qp 5678", Some("5678")),
            (
                "250 2.0.0 <you@example.com> u7AbK1dZWcXAAAAeVt3jA Saved",
                Some("u7AbK1dZWcXAAAAeVt3jA"),
            ),
            // In a reply of several lines.
            (
                "250-2.0.0 Thank you\r\n250 2.0.0 Ok: queued as 4F2",
                Some("4F2"),
            ),
            // None.
            ("250 2.0.0 Ok", None),
            ("250 OK", None),
            ("250 Message accepted for delivery", None),
            ("250 2.0.0 OK Message accepted for delivery", None),
            ("250 2.0.0 Message accepted for delivery", None),
            ("250 2.0.0-x Message accepted for delivery", None),
            ("250 2.0.0 <you@example.com> 2.1.5 Saved", None),
            ("250 Message queued as soon as possible", None),
            ("250 Great success", None),
            ("250 Ok thanks-for-your-message", None),
            ("250 queued as", None),
            ("250 OK id=", None),
            ("250 Requested mail action okay, completed", None),
            // Not of a message that was refused.
            ("451 4.3.0 queued as 4F2", None),
        ] {
            let mut input = BytesMut::from(format!("{lines}\r\n").as_str());
            let reply = ReplyParser::new(Limits::default()).parse(&mut input);
            assert_eq!(in_reply(&reply.unwrap().unwrap()), id, "{lines}");
        }
    }
}
