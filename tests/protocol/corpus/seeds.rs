//! What a dialogue says, as inputs for the fuzz targets.

use envoi::proto::Content;

use support::dialogue::{Dialogue, HandOver, Send, Tls, Turn};

/// All that the server says, behind the byte that says how it is split.
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
            let lines: Vec<&str> = answer
                .lines()
                .map(|line| line.get(4..).unwrap_or_default())
                .collect();
            lines.join("\n").into_bytes()
        })
        .collect()
}

/// The messages behind the lengths of their pieces.
pub fn dot(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    messages(dialogue)
        .map(|message| [&b"\x07\x01\x40\x03"[..], message].concat())
        .collect()
}

/// The messages behind the place where they are split.
#[cfg(feature = "keystores")]
pub fn message(dialogue: &Dialogue) -> Vec<Vec<u8>> {
    messages(dialogue)
        .map(|message| [b"\x09", message].concat())
        .collect()
}

fn messages(dialogue: &Dialogue) -> impl Iterator<Item = &[u8]> {
    dialogue
        .sends
        .iter()
        .map(|send| &send.message[..])
        .filter(|message| message.len() < 10_000)
}

/// A URL of the login, where there is one, and the addresses.
#[cfg(feature = "keystores")]
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
            Some(auth) => format!(
                "{scheme}\n{address}\n{}*x\n{}\n{rest}",
                auth.password, dialogue.helo
            ),
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
    script.extend(vec![
        b'k';
        dialogue.chunk_size.unwrap_or_default().div_ceil(3)
    ]);
    let mut sends = dialogue.sends.iter();
    let mut message: &[u8] = b"";
    let mut hand_over = None;
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
                    message = send.map_or(message, given);
                    hand_over = send.and_then(|send| send.hand_over);
                    let verb = if dialogue.steps { "^m" } else { "^b" };
                    let recipients = if dialogue.steps {
                        ""
                    } else {
                        &send.map_or("r".into(), recipients)
                    };
                    let letters = send.map_or_else(String::new, letters);
                    script.extend_from_slice(
                        format!("{verb}{letters}{}{recipients}", wishes(&text)).as_bytes(),
                    );
                } else if let Some(recipient) =
                    text.strip_prefix("RCPT TO:<").filter(|_| dialogue.steps)
                {
                    script.extend_from_slice(
                        format!("^R{}", recipient.split('>').next().unwrap_or("")).as_bytes(),
                    );
                } else if dialogue.steps && text == "DATA\r\n" {
                    script.extend_from_slice(b"^d");
                } else if text.starts_with("QUIT") {
                    script.extend_from_slice(b"^q");
                }
                // What does not go is held back until the hand-over.
                let is_held = text.starts_with("MAIL")
                    && !text.contains("DATA")
                    && hand_over.is_some_and(|it| it != HandOver::Permitted);
                let has_end = text.ends_with("\r\n.\r\n") || text.contains("BDAT ");
                if (has_end || is_held) && message.len() < 2000 {
                    script.extend_from_slice(&[b"^t", message, b"^f"].concat());
                    script.extend_from_slice(decision(hand_over));
                }
                script.extend_from_slice(b"^w");
            }
            Turn::Body(_) => {
                let given = &message[..message.len().min(2000)];
                script.extend_from_slice(&[b"^t", given, b"^w"].concat());
                if hand_over.is_some() {
                    script.extend_from_slice(b"^f");
                    script.extend_from_slice(decision(hand_over));
                }
            }
            Turn::Tls => script.extend_from_slice(b"^u"),
            Turn::Close => script.extend_from_slice(b"^e"),
            Turn::WaitClose => script.extend_from_slice(b"^w"),
            Turn::Message | Turn::Reset | Turn::QuitOrClose | Turn::Connect => {
                unreachable!("the test of the machine refuses {turn:?}")
            }
        }
    }
    vec![script]
}

/// What the caller decides once the message is given whole.
fn decision(hand_over: Option<HandOver>) -> &'static [u8] {
    match hand_over {
        Some(HandOver::Permitted) => b"^h",
        Some(HandOver::Refused) => b"^v",
        Some(HandOver::Pending) | None => b"",
    }
}

/// The message; one whose size is announced has the size of which there is a letter.
fn given(send: &Send) -> &[u8] {
    if send.size_known {
        b".\r\nab\r\n"
    } else {
        &send.message
    }
}

fn letters(send: &Send) -> String {
    let content = match send.content {
        Content::SevenBit => "7",
        Content::EightBit => "8",
        Content::Binary => "b",
        _ => "",
    };
    let flags = [
        (send.all_or_nothing, "a"),
        (send.hand_over.is_some(), "h"),
        (send.size_known, "j"),
        (send.from.is_none(), "n"),
    ];
    flags
        .into_iter()
        .filter_map(|(is_set, letter)| is_set.then_some(letter))
        .chain([content])
        .collect()
}

fn recipients(send: &Send) -> String {
    let domain = |address: &str| address.rsplit('@').next().unwrap_or_default().to_owned();
    let letter = |address: &String| match address.rsplit_once('@') {
        Some((local, _)) if !local.is_ascii() => 'g',
        Some((_, domain)) if !domain.is_ascii() => 'i',
        Some((_, other)) if !other.eq_ignore_ascii_case(&domain(&send.to[0])) => 'x',
        _ => 'r',
    };
    send.to.iter().map(letter).collect()
}

/// The letters of what is asked for in a group that begins with MAIL.
fn wishes(commands: &str) -> String {
    let known = [
        (" NOTIFY=SUCCESS", 'A'),
        (" NOTIFY=DELAY", 'B'),
        (" NOTIFY=NEVER", 'D'),
        (" ORCPT=x400", 'F'),
        (" RET=HDRS", 'G'),
        (" RET=FULL", 'H'),
        (" ENVID=", 'I'),
        (";R", 'J'),
        (";N", 'K'),
        (" HOLDFOR=", 'L'),
        (" HOLDUNTIL=", 'M'),
        (" MT-PRIORITY=", 'N'),
        (" REQUIRETLS", 'O'),
        (" AUTH=e", 'P'),
        (" AUTH=<>", 'Q'),
    ];
    known
        .iter()
        .filter(|(words, _)| commands.contains(words))
        .map(|(_, letter)| *letter)
        .collect()
}

fn said_by_server(dialogue: &Dialogue) -> Vec<&[u8]> {
    let said = dialogue.script.iter().filter_map(|turn| match turn {
        Turn::Server(bytes) => Some(&bytes[..]),
        _ => None,
    });
    said.collect()
}
