//! envoi under attack: a hostile server, a bad network, a careless caller. Nothing gets through, nothing is lost.
//!
//! Each file is about one promise (SECURITY.md), and each case in it is an attack that has a name or breaks a section of an RFC. All is in
//! memory on a paused clock, or on the loopback interface where the system itself is to be asked. What a single bad
//! reply leads to is in tests/dialogues and tests/failures.

mod cancel;
mod injection;
mod limits;
#[cfg(target_os = "linux")]
mod memory;
mod network;
mod office;
mod once;
mod order;
mod script;
mod secrets;
mod smuggling;
mod starttls;
