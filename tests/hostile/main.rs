//! Attacks on envoi: a hostile server, a faulty network, a careless caller.
//!
//! Each file tests one promise of SECURITY.md, and each case in it is a known attack or a breach of
//! a section of an RFC. Everything runs in memory on a paused clock, or on the loopback interface
//! where the system itself is involved. The results of a single bad reply are in `tests/dialogues`
//! and `tests/failures`.
//!
//! README.md in this folder lists the guards, each with the test that fails without it.

mod at_most_once;
mod cancel;
mod cancel_client;
mod desync;
mod injection;
mod limits;
mod linear;
#[cfg(target_os = "linux")]
mod memory;
mod network;
mod pool;
mod proxies;
mod script;
mod secrets;
mod server;
mod smuggling;
mod starttls;
mod terminal;
