//! The parts of the machine that can be had alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use envoi::proto::{
    Chunk, ClientName, Limits, Output, RawCommand, ReplyError, ReplyParser, Stuffer,
};

use super::Client;

#[test]
fn client_names_and_raw_commands_are_validated() {
    assert_eq!(
        ClientName::literal(Ipv4Addr::new(192, 0, 2, 1).into()).as_str(),
        "[192.0.2.1]"
    );
    assert_eq!(
        ClientName::literal(Ipv6Addr::LOCALHOST.into()).as_str(),
        "[IPv6:::1]"
    );
    assert_eq!(RawCommand::new("VRFY you").unwrap().as_str(), "VRFY you");
    let error = RawCommand::new("X".repeat(2001)).unwrap_err();
    assert!(
        error.to_string().contains("longer than 2000 bytes"),
        "{error}"
    );
    assert!(RawCommand::new("X".repeat(2000)).is_ok());
}

#[test]
fn a_default_stuffer_starts_at_the_beginning_of_a_message() {
    let (mut stuffer, mut output) = (Stuffer::default(), Output::default());
    stuffer.push(Chunk::from(".\n"), &mut output);
    stuffer.finish(&mut output);
    assert_eq!(output.front(), b"..\r\n.\r\n");
}

#[test]
fn a_reply_may_be_as_long_as_its_limit_and_no_longer() {
    let bytes = "250-first\r\n250 second\r\n";
    let parse = |limit| {
        let mut limits = Limits::default();
        limits.reply_bytes = limit;
        ReplyParser::new(limits)
            .parse(&mut BytesMut::from(bytes))
            .map(|reply| reply.is_some())
    };
    assert_eq!(parse(bytes.len()), Ok(true));
    let error = parse(bytes.len() - 1).unwrap_err();
    assert_eq!(error, ReplyError::ReplyTooLong(bytes.len() - 1));
    assert_eq!(
        error.to_string(),
        "a reply is longer than the limit of 22 bytes"
    );
}

#[test]
fn a_long_line_is_shortened_in_the_transcript() {
    let mut client = Client::ready(&[]);
    client
        .machine
        .command(&RawCommand::new(format!("VRFY {}", "x".repeat(1000))).unwrap())
        .unwrap();
    let line = client.machine.transcript().lines().last().unwrap();
    assert!(line.ends_with("x…") && line.len() < 500, "{line}");
}
