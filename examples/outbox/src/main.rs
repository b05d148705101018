//! Mail that waits in a database, sent by any number of workers: nothing lost, nothing sent twice.
//! `outbox --help` lists the commands; the exit code is the result.
//!
//!     outbox add --store sqlite:mail.db --from alice@example.org --to bob@example.com \
//!         --message hello.eml
//!     outbox run --store sqlite:mail.db --url smtp://alice@mail.example.org \
//!         --password-file secret.txt
//!
//! [`job`] has the states, [`store`] keeps them, [`worker`] sends. docs/outbox.md describes the
//! guarantee.

mod commands;
mod failure;
mod job;
mod listen;
mod options;
mod store;
mod worker;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Parser as _;

use failure::Failure;
use options::{Command, Options};

#[tokio::main]
async fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    let result = match Options::try_parse_from(&args) {
        Ok(options) => run(&options.command).await,
        // clap returns --help and --version as errors.
        Err(asked) if asked.exit_code() == 0 => asked.exit(),
        Err(error) => Err(options::explain(&error, &args)),
    };
    let exit_code = result.unwrap_or_else(|failure| {
        report(&failure.message, failure.hint.as_deref());
        failure.exit_code
    });
    // Returning from `main` would wait for a thread that still reads standard input.
    std::process::exit(exit_code.into());
}

async fn run(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::Add(options) => commands::add(options).await?,
        Command::Run(options) => return worker::run(options).await,
        Command::Status(options) => commands::status(options).await?,
        Command::List(options) => commands::list(options).await?,
        Command::Resolve(options) => commands::resolve(options).await?,
        Command::Retry(options) => commands::retry(options).await?,
        Command::Purge(options) => commands::purge(options).await?,
    }
    Ok(0)
}

/// Writes a message with its hint to standard error.
fn report(message: &str, hint: Option<&str>) {
    let mut lines = format!("outbox: {message}\n");
    if let Some(hint) = hint {
        lines += &format!("  hint: {hint}\n");
    }
    // Without standard error, there is no other place for it.
    let _ = io::stderr().write_all(lines.as_bytes());
}
