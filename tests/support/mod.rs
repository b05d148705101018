//! What several tests need.

pub mod dialogue;
