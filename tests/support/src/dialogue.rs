//! Reads the dialogues of `tests/dialogues`; their README has the format.

// The parser of scripts is that of `envoi::testing`, which is not in each build of the tests.
#[path = "../../../src/testing/dialogue/script.rs"]
pub mod script;

use std::fs;
use std::path::Path;

use std::time::{Duration, SystemTime};

use envoi::delivery::{DeliverBy, EnvelopeId, FutureRelease, OriginalRecipient};
use envoi::proto::Content;
use envoi::{Address, Credentials, DeliveryOptions};
use script::unescape;

pub use script::Turn;

/// One conversation: what the client is asked to do, what must come of it, and what goes over the
/// wire.
#[derive(Debug, PartialEq)]
pub struct Dialogue {
    pub is_lmtp: bool,
    pub helo: String,
    pub tls: Tls,
    pub auth: Option<Auth>,
    pub auth_in_clear: bool,
    /// SCRAM's nonce, where it is to be a certain one.
    pub nonce: Option<String>,
    /// The channel binding: its name, and its bytes as text.
    pub channel_binding: Option<(String, String)>,
    /// The server's name and port, as a mechanism tells them.
    pub server: Option<(String, u16)>,
    /// What is said of a login that failed, in a part of its words.
    pub reason: Option<String>,
    /// How large chunks are, where it matters.
    pub chunk_size: Option<usize>,
    pub steps: bool,
    pub round_trips: Option<u32>,
    pub sends: Vec<Send>,
    /// What each side does until it is the other's turn.
    pub script: Vec<Turn>,
    /// The whole file.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tls {
    None,
    Opportunistic,
    Required,
    Implicit,
}

#[derive(Debug, PartialEq)]
pub struct Auth {
    pub mechanism: String,
    pub user: String,
    /// The password, or the token.
    pub password: String,
    pub authorize_as: Option<String>,
}

impl Auth {
    pub fn credentials(&self) -> Credentials {
        let credentials = match self.mechanism.as_str() {
            "EXTERNAL" => Credentials::external(),
            "ANONYMOUS" => Credentials::anonymous(&*self.user),
            "OAUTHBEARER" | "XOAUTH2" => Credentials::token(&*self.user, &*self.password),
            _ => Credentials::new(&*self.user, &*self.password),
        };
        match &self.authorize_as {
            Some(user) => credentials.authorize_as(user),
            None => credentials,
        }
    }
}

impl Dialogue {
    /// Over a real connection, other bytes would go: the nonce, the binding and the port are made
    /// up, and a ready message is never binary, and begins with a header field.
    pub fn is_for_machine_alone(&self) -> bool {
        let is_for_machine = |send: &Send| {
            let first = send
                .message
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            send.content == Content::Binary || !first.contains(&b':')
        };
        let is_made_up = self.nonce.is_some() || self.server.is_some() || self.chunk_size.is_some();
        is_made_up || self.sends.iter().any(is_for_machine)
    }
}

/// A message, and what must come of it.
#[derive(Debug, PartialEq)]
pub struct Send {
    /// `None` is the null sender.
    pub from: Option<String>,
    pub to: Vec<String>,
    pub all_or_nothing: bool,
    pub await_sender: bool,
    /// What the callback before the end of the message returns, if it has one.
    pub hand_over: Option<HandOver>,
    pub message: Vec<u8>,
    pub content: Content,
    pub size_known: bool,
    pub delivery: DeliveryOptions,
    /// As the file has it: codes and `-`, with one blank between them.
    pub recipients: String,
    pub verdicts: String,
    /// As the file has it: `sent 250`.
    pub expect: String,
}

/// What the callback of a message returns that is awaited before its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HandOver {
    Permitted,
    /// An error.
    Refused,
    /// Nothing, until the server has ended the session.
    Pending,
}

/// The `.txt` files of a folder with their names, in order.
///
/// # Panics
///
/// With the file and the line, where one cannot be read: these are tests.
pub fn read_folder(folder: &Path) -> Vec<(String, Dialogue)> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("the folder of dialogues")
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let files = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (
                name,
                parse(&text).unwrap_or_else(|error| panic!("{}:{error}", path.display())),
            )
        })
        .collect()
}

/// Reads a dialogue. The error starts with the number of its line.
pub fn parse(text: &str) -> Result<Dialogue, String> {
    let mut dialogue = Dialogue {
        is_lmtp: false,
        helo: "client.example.org".into(),
        tls: Tls::None,
        auth: None,
        auth_in_clear: false,
        nonce: None,
        channel_binding: None,
        server: None,
        reason: None,
        chunk_size: None,
        steps: false,
        round_trips: None,
        sends: Vec::new(),
        script: Vec::new(),
        text: text.to_owned(),
    };
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    for (number, line) in lines.by_ref() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if dialogue.sends.is_empty() {
                continue;
            }
            break;
        }
        setting(&mut dialogue, line).map_err(|error| format!("{number}: {error}: {line}"))?;
    }
    let script = script::parse(lines).map_err(|(number, error)| format!("{number}: {error}"))?;
    for line in script {
        push(&mut dialogue.script, line.turn);
    }
    for send in &dialogue.sends {
        if send.expect.is_empty() {
            return Err(format!(
                "0: nothing is expected of the message to {}",
                send.to.join(" ")
            ));
        }
    }
    if dialogue.script.is_empty() {
        return Err("0: there is no script".into());
    }
    Ok(dialogue)
}

fn setting(dialogue: &mut Dialogue, line: &str) -> Result<(), String> {
    let (name, value) = line.split_once(": ").ok_or("not `name: value`")?;
    let words: Vec<&str> = value.split_whitespace().collect();
    match (name, &words[..]) {
        ("protocol", ["lmtp"]) => dialogue.is_lmtp = true,
        ("helo", [name]) => dialogue.helo = name.to_string(),
        ("tls", ["none"]) => dialogue.tls = Tls::None,
        ("tls", ["opportunistic"]) => dialogue.tls = Tls::Opportunistic,
        ("tls", ["required"]) => dialogue.tls = Tls::Required,
        ("tls", ["implicit"]) => dialogue.tls = Tls::Implicit,
        ("auth", [mechanism, rest @ ..]) if rest.len() <= 2 => {
            let word = |at: usize| rest.get(at).unwrap_or(&"").to_string();
            let (mechanism, user, password) = (mechanism.to_string(), word(0), word(1));
            dialogue.auth = Some(Auth {
                mechanism,
                user,
                password,
                authorize_as: None,
            });
        }
        ("authorize-as", [user]) => {
            dialogue
                .auth
                .as_mut()
                .ok_or("no `auth:` before it")?
                .authorize_as = Some(user.to_string());
        }
        ("nonce", [nonce]) => dialogue.nonce = Some(nonce.to_string()),
        ("channel-binding", [name, bytes]) => {
            dialogue.channel_binding = Some((name.to_string(), bytes.to_string()))
        }
        ("server", [host, port]) => {
            dialogue.server = Some((host.to_string(), port.parse().map_err(|_| "not a number")?));
        }
        ("reason", [_, ..]) => dialogue.reason = Some(value.to_string()),
        ("auth-in-clear", ["yes"]) => dialogue.auth_in_clear = true,
        ("chunk-size", [size]) => {
            dialogue.chunk_size = Some(size.parse().map_err(|_| "not a number")?);
        }
        ("steps", ["yes"]) => dialogue.steps = true,
        ("round-trips", [number]) => {
            dialogue.round_trips = Some(number.parse().map_err(|_| "not a number")?);
        }
        ("send", ["from", from, "to", to @ ..]) if !to.is_empty() => dialogue.sends.push(Send {
            from: (*from != "<>").then(|| from.to_string()),
            to: to.iter().map(|address| address.to_string()).collect(),
            all_or_nothing: false,
            await_sender: false,
            hand_over: None,
            message: b"Subject: test\r\n\r\nHello\r\n".to_vec(),
            content: Content::Unknown,
            size_known: false,
            delivery: DeliveryOptions::new(),
            recipients: vec!["-"; to.len()].join(" "),
            verdicts: vec!["-"; to.len()].join(" "),
            expect: String::new(),
        }),
        _ => {
            let send = dialogue
                .sends
                .last_mut()
                .ok_or("no such setting before `send:`")?;
            match (name, &words[..]) {
                ("all-or-nothing", ["yes"]) => send.all_or_nothing = true,
                ("await-sender", ["yes"]) => send.await_sender = true,
                ("hand-over", ["permitted"]) => send.hand_over = Some(HandOver::Permitted),
                ("hand-over", ["refused"]) => send.hand_over = Some(HandOver::Refused),
                ("hand-over", ["pending"]) => send.hand_over = Some(HandOver::Pending),
                ("message", _) => send.message = unescape(value)?,
                ("message-lines", [number]) => {
                    let number = number.parse().map_err(|_| "not a number")?;
                    let line = format!("{}\r\n", "x".repeat(76));
                    send.message
                        .extend_from_slice(line.repeat(number).as_bytes());
                }
                ("content", ["7bit"]) => send.content = Content::SevenBit,
                ("content", ["8bit"]) => send.content = Content::EightBit,
                ("content", ["binary"]) => send.content = Content::Binary,
                ("size", ["known"]) => send.size_known = true,
                ("recipients", codes) if codes.len() == send.to.len() => {
                    send.recipients = codes.join(" ")
                }
                ("verdicts", codes) if codes.len() == send.to.len() => {
                    send.verdicts = codes.join(" ")
                }
                (
                    "expect",
                    ["sent", _] | ["refused" | "failed" | "unknown", _, _] | ["nothing"],
                ) => {
                    send.expect = words.join(" ");
                }
                _ => send.delivery = wish(send.delivery.clone(), name, &words, value)?,
            }
        }
    }
    Ok(())
}

/// What is asked for beyond the addresses. Values that cannot be are the business of other tests.
fn wish(
    delivery: DeliveryOptions,
    name: &str,
    words: &[&str],
    value: &str,
) -> Result<DeliveryOptions, String> {
    let wish = || {
        let address = |text: &str| Address::new(text);
        let seconds = |text: &str| Duration::from_secs(text.parse().expect("a number"));
        Ok(Some(match (name, words) {
            ("notify", [list]) => delivery.notify(list.parse()?),
            ("notify-for", [to, list]) => delivery.notify_for(address(to)?, list.parse()?),
            ("orcpt", [to, kind, text]) => {
                delivery.original_recipient(address(to)?, OriginalRecipient::of_type(kind, text)?)
            }
            ("ret", [what]) => delivery.returned(what.parse()?),
            ("envid", _) => delivery.envelope_id(EnvelopeId::new(value)?),
            ("deliver-by", ["return", time]) => {
                delivery.deliver_by(DeliverBy::or_return(seconds(time))?)
            }
            ("deliver-by", ["notify", time, "trace"]) => {
                delivery.deliver_by(DeliverBy::or_notify(seconds(time))?.traced())
            }
            ("hold-for", [time]) => delivery.hold(FutureRelease::for_duration(seconds(time))?),
            ("hold-until", [time]) => delivery.hold(FutureRelease::until(
                SystemTime::UNIX_EPOCH + seconds(time),
            )?),
            ("priority", [number]) => delivery.priority(number.parse()?),
            ("require-tls", ["yes"]) => delivery.require_tls(true),
            ("submitter", ["<>"]) => delivery.submitter(None),
            ("submitter", [from]) => delivery.submitter(address(from)?),
            _ => return Ok(None),
        }))
    };
    wish()
        .map_err(|error: envoi::Error| error.to_string())?
        .ok_or_else(|| "no such setting".into())
}

/// Adds to the group of the same side, if it is still that side's turn.
fn push(script: &mut Vec<Turn>, turn: Turn) {
    match (script.last_mut(), turn) {
        (Some(Turn::Server(group)), Turn::Server(more)) => group.extend(more),
        (Some(Turn::Client(group)), Turn::Client(more)) => group.extend(more),
        (_, turn) => script.push(turn),
    }
}
