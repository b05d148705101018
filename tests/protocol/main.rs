//! The protocol machine without sockets, clocks and async: conversations, single calls, properties
//! of any session, and the inputs of the fuzz targets.

mod corpus;
mod dialogue_format;
#[cfg(feature = "sasl")]
mod dialogues;
#[cfg(feature = "sasl")]
mod machine;
mod properties;
