//! Any caller and any server: what must hold is checked at every turn, and any split of the
//! server's bytes makes the same happen.
//!
//! An input is a script that can be read and written by hand. It starts with the settings, a letter
//! for each. `^` and a letter begin what is done next; what follows, up to the next `^`, goes along
//! with it: `^s250 Ok` and a line end is a reply, `^w` writes all that waits, `^w5` five bytes of
//! it.

use envoi::Address;
use envoi::proto::{
    ClientName, Content, Limits, Mechanism, Protocol, RawCommand, Settings, StartTls, Transaction,
};

use crate::session::{Observed, Session, Split, Wish};

/// What the first letters say. Chunks have three bytes for each `k`.
fn settings(letters: &[u8]) -> Settings {
    let mut settings = Settings::new(ClientName::new("client.example.org").unwrap());
    if let chunks @ 1.. = letters.iter().filter(|letter| **letter == b'k').count() {
        settings.chunk_size = 3 * chunks;
    }
    for letter in letters {
        match letter {
            b'i' => settings.starttls = StartTls::IfOffered,
            b'r' => settings.starttls = StartTls::Required,
            b's' => settings.secure = true,
            b'c' => settings.auth_in_clear = true,
            b'l' => settings.limits = small_limits(),
            b'm' => settings.protocol = Protocol::Lmtp,
            _ => {}
        }
    }
    settings
}

fn small_limits() -> Limits {
    let mut limits = Limits::default();
    (
        limits.line,
        limits.reply_lines,
        limits.reply_bytes,
        limits.challenges,
    ) = (80, 6, 240, 2);
    limits
}

/// What a transaction's letters say. `a` all or nothing; `7`, `8`, `b` what bytes there are; `n` no
/// sender; a recipient for each `r`, `x` in another domain, `i` in one beyond ASCII, `g` with a
/// name beyond ASCII; `u` UTF-8 in headers; `j`, `z`, `Z` a size; `h` a hand-over; and a [`Wish`]
/// for each upper-case letter, in their order.
fn transaction(letters: &[u8]) -> (Transaction, Vec<Wish>) {
    let mut transaction = Transaction::open(Address::new("me@example.org").ok());
    let mut wishes = Vec::new();
    let address = |text: &str| Address::new(text).unwrap();
    for letter in letters {
        match letter {
            b'a' => transaction.all_or_nothing = true,
            b'7' => transaction.content = Content::SevenBit,
            b'8' => transaction.content = Content::EightBit,
            b'b' => transaction.content = Content::Binary,
            b'n' => transaction.reverse_path = None,
            b'r' => transaction.recipients.push(address("you@example.com")),
            b'x' => transaction.recipients.push(address("e=mc2+x@example.net")),
            b'i' => transaction.recipients.push(address("you@ex\u{e4}mple.com")),
            b'g' => transaction
                .recipients
                .push(address("j\u{f6}rg+x@example.com")),
            b'u' => transaction.utf8_headers = true,
            b'h' => transaction.hand_over = true,
            b'j' => transaction.size = Some(7),
            b'z' => transaction.size = Some(1000),
            b'Z' => transaction.size = Some(100_000),
            b'A'.. => wishes.extend(Wish::ALL.get(usize::from(letter - b'A'))),
            _ => {}
        }
    }
    (transaction, wishes)
}

fn play(script: &[u8], split: Split) -> (Vec<Observed>, Vec<u8>) {
    let mut records = script.split(|byte| *byte == b'^');
    let mut session = Session::new(settings(records.next().unwrap_or_default()), split);
    for record in records {
        let Some((letter, rest)) = record.split_first() else {
            continue;
        };
        let text = String::from_utf8_lossy(rest);
        match letter {
            b's' => session.feed(rest),
            b'e' => session.end(),
            b'w' => session.take(text.trim().parse().unwrap_or(usize::MAX)),
            b'u' => session.upgraded(),
            b'p' => session.login(Mechanism::Plain),
            b'l' => session.login(Mechanism::Login),
            b'b' => {
                let (transaction, wishes) = transaction(rest);
                session.begin(transaction, &wishes);
            }
            b'm' => {
                let (transaction, wishes) = transaction(rest);
                session.mail(transaction, &wishes);
            }
            b'r' => {
                if let Ok(address) = Address::new(text) {
                    session.rcpt(address);
                }
            }
            b'R' => {
                if let Ok(address) = Address::lenient(text) {
                    session.rcpt(address);
                }
            }
            b'd' => session.data(),
            b't' => session.body(rest),
            b'f' => session.finish(),
            b'h' => session.hand_over(),
            b'v' => session.withdraw(),
            b'z' => session.reset(),
            b'n' => session.noop(),
            b'c' => {
                if let Ok(command) = RawCommand::new(text) {
                    session.command(&command);
                }
            }
            b'q' => session.quit(),
            b'a' => session.abort(),
            _ => {}
        }
    }
    session.conclude()
}

pub fn check(script: &[u8]) {
    let whole = play(script, Split::Nowhere);
    assert_eq!(play(script, Split::Everywhere), whole);
    let lengths: Vec<usize> = script
        .iter()
        .take(5)
        .map(|byte| 1 + usize::from(byte % 16))
        .chain([3])
        .collect();
    assert_eq!(play(script, Split::Into(lengths.clone())), whole);
    // Here more may be written before a step of the script's, so only what must hold always does.
    play(script, Split::AndAnswered(lengths));
}
