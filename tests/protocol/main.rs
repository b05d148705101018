//! The protocol machine without sockets, clocks and async: conversations, single calls, properties
//! of any session, and the inputs of the fuzz targets.

#[cfg(feature = "keystores")]
mod corpus;
#[cfg(feature = "sasl")]
mod dialogues;
#[cfg(feature = "sasl")]
mod machine;
mod properties;
#[path = "../support/mod.rs"]
mod support;
