//! The examples as programs: what they do, print and exit with.
//!
//! `cargo test` builds the examples first. `cargo test --test cli` alone does not: then
//! `cargo build --examples --all-features` comes before.

mod blocking;
mod bulk;
mod fuzz_server;
#[cfg(unix)]
mod killed;
mod machine;
#[cfg(target_os = "linux")]
mod memory;
mod probe;
mod send;
