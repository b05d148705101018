//! Mail without a relay, in a lab: signed, unsigned and broken zones served by NSD, looked up
//! through Unbound, and mail servers on addresses of the loopback interface.
//!
//! Each test is `#[ignore = "needs root, NSD and Unbound"]`, and runs with `-- --ignored` after
//! `tests/mx/install.sh`. README.md in this folder describes the lab and how to add to it.

#![cfg(target_os = "linux")]

mod cases;
mod certificates;
mod dane;
mod delivery;
mod lab;
mod mta_sts;
mod postfix;
mod probe;
mod resolver;
mod send;
mod zone;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::lab;

/// Unbound, which validates by itself, finds each zone to be what it is made for.
#[test]
#[ignore = "needs root, NSD and Unbound"]
fn the_zones_are_signed_unsigned_and_broken() {
    let anchors = std::fs::read_to_string(lab().anchor_file()).unwrap();
    assert_eq!(anchors, lab().anchors);
    const SERVFAIL: u8 = 2;
    const NXDOMAIN: u8 = 3;
    for (name, code, is_secure) in [
        ("signed.example", 0, true),
        ("alias.signed.example", 0, true),
        ("absent.signed.example", NXDOMAIN, true),
        ("nsec3.example", 0, true),
        ("absent.optout.example", NXDOMAIN, false),
        ("sub.optout.example", 0, false),
        ("unsigned.example", 0, false),
        ("nokeys.example", 0, false),
        ("ed25519.example", 0, true),
        ("p384.example", 0, true),
        ("expired.example", SERVFAIL, false),
        ("forged.example", SERVFAIL, false),
        ("wrongds.example", SERVFAIL, false),
        ("missing.example", SERVFAIL, false),
    ] {
        for resolver in [Some(lab().resolver()), lab().resolver_v6()]
            .into_iter()
            .flatten()
        {
            let answer = ask_for_mx(resolver, name);
            assert_eq!(answer, (code, is_secure), "{name}, {resolver}");
        }
    }
}

/// The code of the answer, and whether Unbound says that it is secure (RFC 4035, 3.2.3).
fn ask_for_mx(resolver: SocketAddr, name: &str) -> (u8, bool) {
    // The bits RD and AD, and one question.
    let mut question = vec![0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 15, 0, 1]);
    let any = match resolver {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    socket.send_to(&question, resolver).unwrap();
    let mut answer = [0; 1500];
    let (length, _) = socket.recv_from(&mut answer).unwrap();
    assert!(length > question.len() - 1 && answer[..2] == question[..2]);
    (answer[3] & 0xF, answer[3] & 0x20 != 0)
}

/// A mail server of the lab presents the certificate that the TLSA records name.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_server_has_the_certificate_of_its_records() {
    let server = lab()
        .server(10, "mx1.signed.example")
        .start()
        .await
        .unwrap();
    assert_eq!(server.port(), 25);
    let (address, trust) = (lab().address(10), lab().ca_file());
    let trust = trust.display();
    let url = format!("smtp://{address}:25?trust={trust}&server-name=mx1.signed.example");
    let connection = envoi::Client::from_url(&url)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let peer = &connection.tls().unwrap().chain[0];
    let record = lab().certificates.tlsa("mx1.signed.example", 3, 0, 1);
    assert_eq!(record, format!("3 0 1 {}", peer.sha256.replace(':', "")));
}
