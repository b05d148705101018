//! An answer to EHLO of any lines: what is read from it is what a simple reader would read,
//! whatever the case of the letters, the order of the lines and the blanks around them.
//!
//! Each line of the input is one of the answer's, without its code.

use bytes::BytesMut;
use envoi::proto::{Capabilities, Limits, Reply, ReplyParser};

fn reply(lines: &[&str]) -> Option<Reply> {
    let (last, others) = lines.split_last()?;
    let others: String = others
        .iter()
        .map(|line| format!("250-{line}\r\n"))
        .collect();
    let mut bytes = BytesMut::from(format!("{others}250 {last}\r\n").as_bytes());
    // Too much of it is an error, which is the business of the target `reply`.
    ReplyParser::new(Limits::default())
        .parse(&mut bytes)
        .ok()
        .flatten()
}

/// The keyword of a line (RFC 5321, 4.1.1.1), and what follows it. `AUTH=` is the form before RFC
/// 2554, and `X-EXPS` an old name for AUTH.
fn keyword(line: &str) -> (String, &str) {
    let line = line.trim();
    let old = |name: &str| {
        ["AUTH", "X-EXPS"]
            .iter()
            .any(|auth| name.eq_ignore_ascii_case(auth))
    };
    let end = match line.find(|c: char| c == '=' || c.is_whitespace()) {
        Some(end) if old(&line[..end]) => end,
        _ => line.find(char::is_whitespace).unwrap_or(line.len()),
    };
    (line[..end].to_uppercase(), line[end..].trim())
}

pub fn check(data: &[u8]) {
    let is_kept = |c: &char| *c == '\n' || !c.is_control();
    let text: String = String::from_utf8_lossy(data)
        .chars()
        .filter(is_kept)
        .collect();
    let Some(reply) = reply(&text.split('\n').collect::<Vec<_>>()) else {
        return;
    };
    // What the parser replaces, such as what turns the direction of writing, is the business of the
    // target `reply`, too.
    let lines: Vec<&str> = reply.lines().iter().map(String::as_str).collect();
    let capabilities = Capabilities::from_reply(&reply);

    assert_eq!(
        capabilities.server_name(),
        lines[0].split_whitespace().next().unwrap_or_default()
    );
    let expected: Vec<_> = lines[1..]
        .iter()
        .map(|line| keyword(line))
        .filter(|(name, _)| !name.is_empty())
        .collect();
    // Only ASCII has upper and lower case in SMTP.
    if text.is_ascii() {
        let found = capabilities.keywords().iter().map(|keyword| &keyword.name);
        assert!(
            found.eq(expected.iter().map(|(name, _)| name)),
            "{:?} of {text:?}",
            capabilities.keywords()
        );
    }
    for keyword in capabilities.keywords() {
        assert!(
            !keyword.name.is_empty() && !keyword.name.contains([' ', '\t', '\r', '\n']),
            "{keyword:?}"
        );
        assert_eq!(keyword.parameters.trim(), keyword.parameters);
        assert!(
            capabilities.offers(&keyword.name)
                && capabilities.offers(&keyword.name.to_ascii_lowercase())
        );
    }
    assert!(!capabilities.offers("") && !capabilities.offers("NOT-OFFERED-BY-ANY LINE"));

    let mechanisms = capabilities.auth();
    for (at, mechanism) in mechanisms.iter().enumerate() {
        assert!(
            !mechanism.is_empty() && !mechanism.contains([' ', '\t', '=', ',']),
            "{mechanism:?}"
        );
        assert_eq!(mechanism.to_ascii_uppercase(), *mechanism);
        assert!(
            !mechanisms[..at].contains(mechanism),
            "each once: {mechanisms:?}"
        );
    }
    assert!(mechanisms.is_empty() || capabilities.offers("AUTH") || capabilities.offers("X-EXPS"));
    assert_ne!(capabilities.size_limit(), Some(0));
    assert!(capabilities.size_limit().is_none() || capabilities.offers("SIZE"));

    check_changed(&lines, &capabilities);
}

/// The same in other letters and with other blanks is the same offer; so it is in another order.
fn check_changed(lines: &[&str], capabilities: &Capabilities) {
    let changed: Vec<String> = lines
        .iter()
        .map(|line| format!(" {} ", line.to_ascii_lowercase()))
        .collect();
    let Some(reply) = reply(&changed.iter().map(String::as_str).collect::<Vec<_>>()) else {
        return;
    };
    let changed = Capabilities::from_reply(&reply);
    assert_eq!(changed.auth(), capabilities.auth());
    assert_eq!(changed.size_limit(), capabilities.size_limit());

    let mut backwards = lines.to_vec();
    backwards[1..].reverse();
    let Some(reply) = self::reply(&backwards) else {
        return;
    };
    let backwards = Capabilities::from_reply(&reply);
    let sorted = |mut words: Vec<String>| {
        words.sort();
        words
    };
    assert_eq!(sorted(backwards.auth()), sorted(capabilities.auth()));
    for keyword in capabilities.keywords() {
        assert!(backwards.keywords().contains(keyword));
    }
}
