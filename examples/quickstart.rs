//! Sends a message with a large attachment to a server in the same process, over STARTTLS and with
//! a login. It needs no settings, and nothing leaves the machine.
//!
//! ```text
//! cargo run --example quickstart
//! cargo run --release --example quickstart -- --attach-size 1G
//! ```

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use clap::Parser;
use envoi::mail_builder::MessageBuilder;
use envoi::testing::{ReceivedMessage, Server};
use envoi::{Attachment, Client, Message, Receipt};
use sha2::{Digest, Sha256};

#[derive(Parser)]
struct Arguments {
    /// The size of the attachment: a number of bytes, or with K, M or G
    #[arg(long, default_value = "20M", value_parser = size)]
    attach_size: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { attach_size } = Arguments::parse();

    // A server with its own CA, STARTTLS and one account.
    let server = Server::builder()
        .login("alice@example.org", "correct horse")
        .start()
        .await?;

    // The attachment.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("film.bin");
    let digest = write_noise(&file, attach_size)?;

    // The URL of the server contains user, password, host, port and the CA to trust.
    let client = Client::from_url(&server.url())?;
    let mail = MessageBuilder::new()
        .from(("Alice", "alice@example.org"))
        .to(("Bob", "bob@example.com"))
        .bcc("archive@example.com")
        .subject("The film")
        .text_body("Hello Bob,\n\nhere is the film.\n\n.. Alice\n");
    let receipt = client
        .send(Message::from(mail).attach(Attachment::file(&file)))
        .await?;
    print(&receipt);

    // The message as the server received it.
    let arrived = server.next_message().await;
    let intact = attachment_digest(&arrived)? == digest;
    println!(
        "attachment    {} bytes, SHA-256 {}",
        attach_size,
        if intact {
            "intact on arrival"
        } else {
            "DIFFERS"
        }
    );
    if !intact {
        return Err("the attachment did not arrive as it was sent".into());
    }
    Ok(())
}

fn print(receipt: &Receipt) {
    let seconds = receipt.elapsed.as_secs_f64();
    let megabytes = receipt.bytes as f64 / 1e6;
    println!("sent to       {}", receipt.server);
    match &receipt.tls {
        Some(tls) => {
            println!("protected by  {}, {}", tls.version, tls.cipher);
            if let Some(peer) = tls.peer() {
                println!(
                    "server is     {}, certified by {}",
                    peer.subject,
                    tls.verified_by.as_deref().unwrap_or("no authority")
                );
            }
        }
        None => println!("protected by  nothing"),
    }
    if let Some(mechanism) = receipt.mechanism {
        println!("logged in by  {mechanism}");
    }
    for recipient in &receipt.recipients {
        let outcome = if recipient.outcome.is_accepted() {
            "accepted"
        } else {
            "not accepted"
        };
        println!("recipient     {} {outcome}", recipient.address);
    }
    if let Some(reply) = &receipt.reply {
        println!("server said   {reply}");
    }
    let rate = megabytes / seconds;
    println!(
        "message       {megabytes:.1} MB in {seconds:.2} s ({rate:.0} MB/s), {} round trips",
        receipt.round_trips
    );
}

/// Fills a file with incompressible bytes, and returns their SHA-256.
fn write_noise(path: &Path, mut size: u64) -> io::Result<Vec<u8>> {
    let mut file = io::BufWriter::new(std::fs::File::create(path)?);
    let (mut digest, mut state, mut block) =
        (Sha256::new(), 0x9e37_79b9_7f4a_7c15_u64, [0; 64 * 1024]);
    while size > 0 {
        for word in block.chunks_exact_mut(8) {
            // Xorshift (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = &block[..size.min(block.len() as u64) as usize];
        digest.update(part);
        io::Write::write_all(&mut file, part)?;
        size -= part.len() as u64;
    }
    io::Write::flush(&mut file)?;
    Ok(digest.finalize().to_vec())
}

/// Decodes the attachment of the message, line by line, and returns its SHA-256.
fn attachment_digest(message: &ReceivedMessage) -> io::Result<Vec<u8>> {
    let mut lines = BufReader::with_capacity(1 << 20, std::fs::File::open(message.path())?);
    let (mut line, mut in_headers, mut digest) = (Vec::new(), false, Sha256::new());
    let mut in_attachment = false;
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = line.trim_ascii_end();
        if in_attachment {
            if text.is_empty() || text.starts_with(b"--") {
                break;
            }
            let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text);
            digest.update(decoded.map_err(io::Error::other)?);
        } else if text.starts_with(b"Content-Disposition: attachment") {
            in_headers = true;
        } else if in_headers && text.is_empty() {
            in_attachment = true;
        }
        line.clear();
    }
    Ok(digest.finalize().to_vec())
}

fn size(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.to_ascii_uppercase().chars().last() {
        Some('K') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "give a number, with K, M or G if it is large".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "that is too large".to_owned())
}
