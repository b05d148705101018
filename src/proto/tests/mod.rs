//! Tests that need what is private to the machine.

#[cfg(feature = "client")]
mod client;
mod exhaustion;
