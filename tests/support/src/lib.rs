//! Support for envoi's tests and fuzz targets: the parser of dialogues, a strict decoder of
//! messages, a session that checks the machine at every step, the checks of the fuzz targets, and
//! helpers for tests that use sockets.

pub mod decoder;
pub mod dialogue;
pub mod fuzz;
#[cfg(feature = "io")]
pub mod log;
#[cfg(feature = "io")]
pub mod program;
#[cfg(feature = "io")]
pub mod rss;
#[cfg(feature = "io")]
pub mod scripted_server;
pub mod session;

use envoi::Address;

/// Parses an address that is known to be valid.
pub fn address(address: &str) -> Address {
    Address::new(address).unwrap()
}

/// Returns the beginning of bytes as text, for messages of assertions.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned()
}
