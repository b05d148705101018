//! Reads the settings of a mail server from a file or from environment variables, and prints the
//! result. The password is not printed.
//!
//!     cargo run --example settings -- app.toml
//!     MAIL_HOST=mail.example.org MAIL_TLS=opportunistic cargo run --example settings -- MAIL_
//!
//! The file of a program may look like this:
//!
//! ```toml
//! [mail]
//! host = "mail.example.org"
//! user = "alice@example.org"
//! password-file = "/run/secrets/smtp"
//!
//! [notify]
//! from = '"The shop, orders" <orders@example.org>'
//! to = ["Bob <bob@example.com>", "carol@example.com"]
//! ```

use std::error::Error;

use envoi::mail_builder::MessageBuilder;
use envoi::{Client, Envelope, Mailbox, MailboxList, Message, Settings};
use serde::Deserialize;

/// The settings of the program.
#[derive(Deserialize)]
struct Config {
    mail: Settings,
    notify: Option<Notify>,
}

/// The sender and the recipients of its notifications.
#[derive(Deserialize)]
struct Notify {
    from: Mailbox,
    to: MailboxList,
}

fn main() -> Result<(), Box<dyn Error>> {
    let source = std::env::args().nth(1).ok_or("give a file, or a prefix")?;
    let config = match source.ends_with(".toml") {
        // The message alone: in full, the error quotes the line, which may have the password.
        true => toml::from_str(&std::fs::read_to_string(source)?)
            .map_err(|error: toml::de::Error| error.message().to_owned())?,
        false => Config {
            mail: Settings::from_env(&source)?,
            notify: None,
        },
    };
    println!("{}", serde_json::to_string_pretty(&config.mail)?);
    let client = Client::new(config.mail.endpoint()?);
    println!("{:?}", client.endpoint());
    if let Some(notify) = config.notify {
        println!("{:?}", message(notify.from, notify.to)?);
    }
    Ok(())
}

/// What `client.send` takes.
fn message(from: Mailbox, to: MailboxList) -> envoi::Result<Message<'static>> {
    let envelope = Envelope::new(&from, to.clone())?;
    let mail = MessageBuilder::new()
        .from(from)
        .to(to)
        .subject("An order")
        .text_body("There is a new order.");
    Ok(Message::from(mail).envelope(envelope))
}
