//! The protocol.

pub mod dot;
mod reply;

pub use reply::{EnhancedCode, Reply};
