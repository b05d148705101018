//! What several tests need; each uses its part.
#![allow(dead_code)]

pub mod dialogue;
#[cfg(feature = "client")]
#[cfg(feature = "client")]
pub mod log;
#[cfg(feature = "client")]
pub mod program;
pub mod rss;
#[cfg(feature = "client")]
pub mod scripted_server;
