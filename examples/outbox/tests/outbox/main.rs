//! Tests of the program as its users run it.

mod commands;
mod page;
mod program;
mod server;
mod stores;
mod survival;
mod throughput;
