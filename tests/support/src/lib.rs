//! Support for envoi's tests and fuzz targets: the parser of dialogues, a strict decoder of
//! messages, a session that checks the machine at every step, the checks of the fuzz targets, and
//! helpers for tests that use sockets.

pub mod decoder;
pub mod dialogue;
#[cfg(feature = "client")]
pub mod dkim;
pub mod fuzz;
#[cfg(feature = "io")]
pub mod https;
#[cfg(feature = "io")]
pub mod log;
#[cfg(feature = "io")]
pub mod program;
#[cfg(feature = "io")]
pub mod rss;
pub mod session;

use envoi::Address;
#[cfg(feature = "io")]
use mail_builder::MessageBuilder;

/// Parses an address that is known to be valid.
pub fn address(address: &str) -> Address {
    Address::new(address).unwrap()
}

/// Returns the beginning of bytes as text, for messages of assertions.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}

/// Returns bytes without a pattern, the same ones each time.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(next).collect()
}

/// Builds a small message to `you@example.com`.
#[cfg(feature = "io")]
pub fn hello() -> MessageBuilder<'static> {
    hello_to(&["you@example.com"])
}

/// Builds a small message to these recipients.
#[cfg(feature = "io")]
pub fn hello_to(to: &[&str]) -> MessageBuilder<'static> {
    let to: Vec<String> = to.iter().map(|address| (*address).to_owned()).collect();
    MessageBuilder::new()
        .from("me@example.org")
        .to(to)
        .subject("Hello")
        .text_body("Hello.\n")
}
