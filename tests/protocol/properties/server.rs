//! The server of a plan.

use envoi::proto::Protocol;

use super::plan::{Answer, Plan};

pub struct Server<'a> {
    plan: &'a Plan,
    answers: std::slice::Iter<'a, Answer>,
    reads: Reads,
    read: usize,
    pub is_secure: bool,
    accepted: usize,
    /// MAIL asked for a reply for each recipient.
    prdr: bool,
    pub is_gone: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Reads {
    Commands,
    Responses,
    Message,
}

impl<'a> Server<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        Server {
            plan,
            answers: plan.answers.iter(),
            reads: Reads::Commands,
            read: 0,
            is_secure: plan.secure,
            accepted: 0,
            prdr: false,
            is_gone: false,
        }
    }

    /// What it says to what has come since it was last asked.
    pub fn answer(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut said = Vec::new();
        while !self.is_gone {
            let new = &wire[self.read..];
            let (end, replies) = if self.reads == Reads::Message {
                // The line end before the dot may be that of DATA.
                let from = self.read - 2;
                let Some(found) = wire[from..]
                    .windows(5)
                    .position(|bytes| bytes == b"\r\n.\r\n")
                else {
                    break;
                };
                (found + 3, self.final_replies())
            } else {
                let Some(found) = new.windows(2).position(|pair| pair == b"\r\n") else {
                    break;
                };
                let command = std::str::from_utf8(&new[..found]).expect("commands are text");
                let end = found + 2 + size_of_chunk(command);
                if end > new.len() {
                    break;
                }
                (end, self.apt(command))
            };
            let is_recipient = new.starts_with(b"RCPT");
            let asked_for_data = self.reads == Reads::Commands && new.starts_with(b"DATA\r\n");
            let is_login = self.reads == Reads::Responses || new.starts_with(b"AUTH");
            self.read += end;
            let answer: Vec<u8> = replies
                .into_iter()
                .flat_map(|apt| self.respond(apt))
                .collect();
            self.accepted += usize::from(is_recipient && answer.starts_with(b"2"));
            self.reads = match answer.first() {
                Some(b'3') if asked_for_data => Reads::Message,
                Some(b'3') if is_login => Reads::Responses,
                _ => Reads::Commands,
            };
            said.extend_from_slice(&answer);
        }
        said
    }

    pub fn respond(&mut self, mut apt: Vec<String>) -> Vec<u8> {
        if self.is_gone {
            return Vec::new();
        }
        let mut behind = Vec::new();
        match self.answers.next().unwrap_or(&Answer::Apt) {
            Answer::Apt => {}
            Answer::InLines(more) => {
                (0..*more).for_each(|n| apt.push(format!("{} line {n}", &apt[0][..3])))
            }
            Answer::Code(code) => apt = vec![format!("{code} {}.1.1 as the plan says", code / 100)],
            Answer::Bytes(bytes) => return bytes.clone(),
            Answer::Behind(bytes) => behind = bytes.clone(),
            Answer::Gone => {
                self.is_gone = true;
                return Vec::new();
            }
        }
        let last = apt.len() - 1;
        for line in &mut apt[..last] {
            line.replace_range(3..4, "-");
        }
        self.is_gone = apt[last].starts_with("421");
        let mut said: Vec<u8> = apt
            .into_iter()
            .flat_map(|line| line.into_bytes().into_iter().chain(*b"\r\n"))
            .collect();
        said.extend_from_slice(&behind);
        said
    }

    /// The replies to a message that came whole.
    fn final_replies(&self) -> Vec<Vec<String>> {
        let taken = vec!["250 2.0.0 Ok: queued".to_owned()];
        let for_each = vec![taken.clone(); self.accepted];
        match self.plan.protocol {
            Protocol::Lmtp => for_each,
            Protocol::Smtp if self.prdr && self.accepted > 1 => [
                vec![vec!["353 One by one".to_owned()]],
                for_each,
                vec![taken],
            ]
            .concat(),
            _ => vec![taken],
        }
    }

    fn apt(&mut self, command: &str) -> Vec<Vec<String>> {
        let verb = command.split(' ').next().unwrap_or_default();
        let line = match (self.reads, verb) {
            (Reads::Responses, "*") => "501 5.7.0 Login given up",
            (Reads::Responses, _) if command == "c3VibWl0dGVyIzc=" => "334 UGFzc3dvcmQ6",
            (Reads::Responses, _) => "235 2.7.0 Welcome",
            (_, "EHLO" | "LHLO") => return vec![self.offer()],
            (_, "HELO") => "250 mail.example.org",
            (_, "STARTTLS") => "220 2.0.0 Go ahead",
            (_, "AUTH") if command == "AUTH LOGIN" => "334 VXNlcm5hbWU6",
            (_, "AUTH") => "235 2.7.0 Welcome",
            (_, "MAIL") => {
                (self.accepted, self.prdr) = (0, command.split(' ').any(|word| word == "PRDR"));
                "250 2.1.0 Ok"
            }
            (_, "RCPT") => "250 2.1.5 Ok",
            (_, "DATA") if self.accepted > 0 || self.plan.always_goes_ahead => "354 End with a dot",
            (_, "BDAT") if self.accepted > 0 && command.ends_with(" LAST") => {
                return self.final_replies();
            }
            (_, "BDAT") if self.accepted > 0 => "250 2.0.0 Ok: a chunk",
            (_, "DATA" | "BDAT") => "503 5.5.1 No recipients",
            (_, "QUIT") => "221 2.0.0 Bye",
            _ => "250 2.0.0 Ok",
        };
        vec![vec![line.to_owned()]]
    }

    fn offer(&self) -> Vec<String> {
        let offer = &self.plan.offers[usize::from(self.is_secure)];
        let known = [
            (offer.pipelining, "PIPELINING"),
            (offer.starttls, "STARTTLS"),
            (offer.eight_bit, "8BITMIME"),
        ];
        let known = known
            .into_iter()
            .filter_map(|(offered, keyword)| offered.then_some(keyword));
        let lines = ["mail.example.org greets"]
            .into_iter()
            .chain(known)
            .chain(offer.others.iter().copied());
        lines.map(|line| format!("250 {line}")).collect()
    }
}

/// A chunk comes behind its command (RFC 3030).
fn size_of_chunk(command: &str) -> usize {
    let size = command
        .strip_prefix("BDAT ")
        .map(|rest| rest.strip_suffix(" LAST").unwrap_or(rest));
    size.map_or(0, |size| size.parse().expect("BDAT has a size"))
}
