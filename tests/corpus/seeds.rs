//! What a dialogue says, as inputs for the fuzz targets.

use crate::dialogue::{Dialogue, Tls, Turn};

/// All that the server says, behind the byte that says how it is cut.
pub fn reply(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    vec![[b"\x06".to_vec(), said_by_server(dialogue).concat()].concat()]
}

/// The answers to EHLO without their codes.
pub fn capabilities(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    let ehlo = |turn: &Turn| matches!(turn, Turn::Client(bytes) if bytes.starts_with(b"EHLO"));
    let pairs = dialogue.script.windows(2).filter(|pair| ehlo(&pair[0]));
    let answers = pairs.filter_map(|pair| match &pair[1] {
        Turn::Server(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    });
    answers
        .map(|answer| {
            let lines: Vec<&str> = answer.lines().map(|line| line.get(4..).unwrap_or_default()).collect();
            lines.join("\n").into_bytes()
        })
        .collect()
}

/// The messages behind the lengths of their pieces.
pub fn dot(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    messages(dialogue).map(|message| [&b"\x07\x01\x40\x03"[..], message].concat()).collect()
}

/// The messages behind the place where they are cut.
pub fn message(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    messages(dialogue).map(|message| [b"\x09", message].concat()).collect()
}

fn messages(dialogue: &Dialogue) -> impl Iterator<Item = &[u8]> {
    dialogue.sends.iter().map(|send| &send.message[..]).filter(|message| message.len() < 10_000)
}

/// A URL of the login, where there is one, and the addresses.
pub fn address(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    let (scheme, rest) = match dialogue.tls {
        Tls::None => ("smtp", "?tls=none"),
        Tls::Opportunistic => ("smtp", "?tls=opportunistic"),
        Tls::Required => ("smtp", "/"),
        Tls::Implicit => ("smtps", ":465"),
    };
    dialogue
        .sends
        .iter()
        .flat_map(|send| send.from.iter().chain(&send.to))
        .map(|address| match &dialogue.auth {
            None => address.clone(),
            Some(auth) => format!("{scheme}\n{address}\n{}*x\n{}\n{rest}", auth.password, dialogue.helo),
        })
        .map(String::into_bytes)
        .collect()
}

/// The whole conversation as a script of the target `machine`, whose top tells how it is written.
pub fn machine(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    let mut script = Vec::new();
    match dialogue.tls {
        Tls::None => {}
        Tls::Opportunistic => script.push(b'i'),
        Tls::Required => script.push(b'r'),
        Tls::Implicit => script.push(b's'),
    }
    if dialogue.auth_in_clear {
        script.push(b'c');
    }
    if dialogue.is_lmtp {
        script.push(b'm');
    }
    let mut sends = dialogue.sends.iter();
    let mut message: &[u8] = b"";
    for turn in &dialogue.script {
        match turn {
            Turn::Server(bytes) => script.extend_from_slice(&[b"^s", &bytes[..]].concat()),
            Turn::Client(bytes) => {
                let text = String::from_utf8_lossy(bytes);
                if text.starts_with("AUTH LOGIN") {
                    script.extend_from_slice(b"^l");
                } else if text.starts_with("AUTH ") {
                    script.extend_from_slice(b"^p");
                } else if text.starts_with("MAIL") {
                    let send = sends.next();
                    message = send.map_or(message, |send| &send.message);
                    let recipients = send.map_or(1, |send| send.to.len());
                    let all = if send.is_some_and(|send| send.all_or_nothing) { "a" } else { "" };
                    script.extend_from_slice(format!("^b{all}{}", "r".repeat(recipients)).as_bytes());
                } else if text.starts_with("QUIT") {
                    script.extend_from_slice(b"^q");
                } else if text.ends_with("\r\n.\r\n") && message.len() < 2000 {
                    script.extend_from_slice(&[b"^t", message, b"^f"].concat());
                }
                script.extend_from_slice(b"^w");
            }
            Turn::Body(_) => script.extend_from_slice(&[b"^t", &message[..message.len().min(2000)], b"^w"].concat()),
            Turn::Tls => script.extend_from_slice(b"^u"),
            Turn::Close => script.extend_from_slice(b"^e"),
            Turn::WaitClose => script.extend_from_slice(b"^w"),
        }
    }
    vec![script]
}

fn said_by_server(dialogue: &Dialogue) -> Vec<&[u8]> {
    let said = dialogue.script.iter().filter_map(|turn| match turn {
        Turn::Server(bytes) => Some(&bytes[..]),
        _ => None,
    });
    said.collect()
}
