//! Sends what it reads from standard input as an attachment, in a program without async: a cron job
//! that mails a dump, a report or a log. Nothing is buffered: a pipe may be larger than memory.
//!
//! ```text
//! pg_dump shop | cargo run --example blocking -- URL FROM SUBJECT TO…
//! ```
//!
//! The URL has the format of `Endpoint::from_url`.

use std::error::Error;
use std::process::ExitCode;

use envoi::blocking::{self, Client};
use envoi::mail_builder::MessageBuilder;
use envoi::{Attachment, Message, Outcome};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, from, subject, to @ ..] = &arguments[..] else {
        return Err("usage: blocking URL FROM SUBJECT TO…".into());
    };
    let client = Client::from_url(url)?;
    let mail = MessageBuilder::new()
        .from(from.as_str())
        .to(to.to_vec())
        .subject(subject)
        .text_body("See the attachment.\n");
    let input = blocking::reader(std::io::stdin());
    let attachment = Attachment::reader("input", "application/octet-stream", input);

    let receipt = match client.send(Message::from(mail).attach(attachment)) {
        Ok(receipt) => receipt,
        Err(error) if error.outcome_unknown() => {
            eprintln!("It may have been delivered: {error}");
            return Ok(ExitCode::from(2));
        }
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    for recipient in receipt.not_accepted() {
        match &recipient.outcome {
            Outcome::Refused(reply) => eprintln!("{}: {reply}", recipient.address),
            outcome => eprintln!("{}: {outcome:?}", recipient.address),
        }
    }
    match receipt.all_accepted() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}
