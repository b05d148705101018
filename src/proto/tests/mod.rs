//! Tests that need what is private to the machine.

mod calls;
#[cfg(feature = "client")]
mod client;
mod exhaustion;
