//! What a server answers to each command: well, badly, oddly, or not at all.

use std::fmt;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

#[derive(Clone, Debug)]
pub struct Script {
    pub greeting: Answer,
    pub ehlo: Answer,
    pub helo: Answer,
    pub mail: Answer,
    pub recipients: [Answer; 2],
    pub data: Answer,
    pub end: Answer,
}

/// What is said, and whether the connection is closed behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub bytes: Vec<u8>,
    pub closes: bool,
    pub form: Form,
}

/// What is wrong with an answer, if anything is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Good,
    /// It has no form of a reply.
    Garbage,
    /// Its lines have different codes.
    CodeChanges,
    /// It is longer than smtplib reads.
    TooLong,
    /// An unexpected reply follows.
    OneMore,
    /// It does not end.
    Cut,
}

impl Answer {
    pub fn apt(line: &str) -> Self {
        Answer {
            bytes: format!("{line}\r\n").into_bytes(),
            closes: false,
            form: Form::Good,
        }
    }

    /// The code of its first line; 0 if there is none.
    pub fn code(&self) -> u16 {
        let digits = self
            .bytes
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// A client that reads it will send the message.
    pub fn goes_ahead(&self) -> bool {
        self.code() / 100 == 3 && !self.closes
    }
}

impl Script {
    pub fn answers(&self) -> [&Answer; 8] {
        let [first, second] = &self.recipients;
        [
            &self.greeting,
            &self.ehlo,
            &self.helo,
            &self.mail,
            first,
            second,
            &self.data,
            &self.end,
        ]
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, answer) in [
            "greeting", "EHLO", "HELO", "MAIL", "RCPT", "RCPT", "DATA", "end",
        ]
        .iter()
        .zip(self.answers())
        {
            let text =
                String::from_utf8_lossy(&answer.bytes[..answer.bytes.len().min(100)]).into_owned();
            writeln!(
                f,
                "  {name}: {text:?}{}",
                if answer.closes { ", closes" } else { "" }
            )?;
        }
        Ok(())
    }
}

/// The lines of a reply with this code, in the forms that servers write.
fn reply(code: u16) -> BoxedStrategy<Answer> {
    let class = code / 100;
    prop_oneof![
        4 => Just(format!("{code} {class}.0.0 as the script says\r\n")),
        2 => Just(format!("{code} as the script says\r\n")),
        1 => Just(format!("{code}\r\n")),
        1 => Just(format!("{code} \r\n")),
        1 => Just(format!("{code} a line feed alone\n")),
        1 => Just(format!("{code}-{class}.7.1 in\r\n{code}-{class}.7.1 three\r\n{code} \
            {class}.7.1 lines\r\n")),
        1 => Just(format!("{code}-first\n{code} last\r\n")),
        1 => Just(format!("{code} caf\u{e9} \u{1b}[31m\0\r\n")),
    ]
    .prop_map(|text| Answer {
        bytes: text.into_bytes(),
        closes: false,
        form: Form::Good,
    })
    .boxed()
}

fn any_code() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => prop::sample::select(vec![421, 450, 451, 452, 455, 500, 501, 502, 503, 504, 530, 550, 551, 552, 553, 554, 571]),
        2 => prop::sample::select(vec![211, 214, 220, 221, 250, 251, 252, 334, 354]),
        1 => 200u16..600,
    ]
}

fn odd(code: u16) -> BoxedStrategy<Answer> {
    let answer = |text: String, form| Answer {
        bytes: text.into_bytes(),
        closes: false,
        form,
    };
    prop_oneof![
        Just(answer("* OK IMAP4rev1 ready\r\n".into(), Form::Garbage)),
        // More empty lines than are passed over before a reply.
        Just(answer("\r\n".repeat(17), Form::Garbage)),
        Just(answer(format!("{code}ok\r\n"), Form::Garbage)),
        Just(answer("150 not of SMTP\r\n".into(), Form::Garbage)),
        Just(answer("650 not of SMTP\r\n".into(), Form::Garbage)),
        Just(answer(
            format!("{code}-one\r\n251 another\r\n"),
            Form::CodeChanges
        )),
        Just(answer(
            format!("{code} {}\r\n", "x".repeat(20_000)),
            Form::TooLong
        )),
        Just(answer(
            format!("{code} one\r\n{code} more\r\n"),
            Form::OneMore
        )),
    ]
    .boxed()
}

fn answer(apt: &'static str) -> BoxedStrategy<Answer> {
    let code: u16 = apt[..3].parse().unwrap();
    let said = prop_oneof![
        70 => Just(Answer::apt(apt)),
        12 => reply(code),
        14 => any_code().prop_flat_map(reply),
        3 => odd(code),
    ];
    let closing = prop_oneof![96 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    let said_and_closed = (said, closing).prop_map(|(mut answer, closing)| {
        match closing {
            0 => {}
            1 => answer.closes = true,
            2 => {
                answer = Answer {
                    bytes: Vec::new(),
                    closes: true,
                    form: Form::Cut,
                }
            }
            _ => {
                answer.bytes.truncate(answer.bytes.len() / 2);
                (answer.closes, answer.form) = (true, Form::Cut);
            }
        }
        // Who says 421 closes (RFC 5321, 3.8).
        answer.closes |= answer.code() == 421;
        answer
    });
    // Or what eight of them are made of does not fit onto the stack.
    said_and_closed.boxed()
}

fn ehlo() -> impl Strategy<Value = Answer> {
    let offers = prop::sample::subsequence(
        vec![
            "PIPELINING",
            "SIZE 10485760",
            "8BITMIME",
            "ENHANCEDSTATUSCODES",
            "AUTH=LOGIN",
            "X-Odd  a b",
            "",
            "dsn",
        ],
        0..=8,
    );
    let offer = offers.prop_map(|keywords| {
        let mut lines = vec!["mail.example.org greets you"];
        lines.extend(keywords);
        let last = lines.len() - 1;
        let line = |(at, line): (usize, &&str)| {
            format!("250{}{line}\r\n", if at == last { ' ' } else { '-' })
        };
        let bytes = lines
            .iter()
            .enumerate()
            .map(line)
            .collect::<String>()
            .into_bytes();
        Answer {
            bytes,
            closes: false,
            form: Form::Good,
        }
    });
    prop_oneof![3 => offer, 1 => answer("250 mail.example.org")]
}

fn script() -> impl Strategy<Value = Script> {
    let hello = (
        answer("220 mail.example.org ESMTP"),
        ehlo(),
        answer("250 mail.example.org"),
    );
    let envelope = (
        answer("250 2.1.0 Ok"),
        [answer("250 2.1.5 Ok"), answer("250 2.1.5 Ok")],
    );
    let message = (answer("354 Go ahead"), answer("250 2.0.0 Ok: queued"));
    (hello, envelope, message).prop_map(
        |((greeting, ehlo, helo), (mail, recipients), (data, end))| Script {
            greeting,
            ehlo,
            helo,
            mail,
            recipients,
            data,
            end,
        },
    )
}

/// The same ones every time.
pub fn scripts(number: usize) -> Vec<Script> {
    let mut runner = TestRunner::deterministic();
    (0..number)
        .map(|_| script().new_tree(&mut runner).unwrap().current())
        .collect()
}
