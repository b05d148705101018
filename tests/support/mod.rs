//! What several tests need; each uses its part.
#![allow(dead_code)]

pub mod dialogue;
#[cfg(feature = "client")]
pub mod scripted_server;
