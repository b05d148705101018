//! The example that fuzzes servers, with the server inside the process as its victim: it outlives
//! all of them.

#[allow(dead_code, reason = "its main is not called here")]
#[path = "../../examples/fuzz_server.rs"]
mod fuzz_server;

use std::net::TcpStream;

use envoi::testing::Server;
use envoi::{Address, Envelope};
use fuzz_server::{Seen, session};
use tokio::runtime::Runtime;

#[test]
fn the_server_for_tests_outlives_it() {
    let runtime = Runtime::new().unwrap();
    let server = runtime
        .block_on(Server::builder().plaintext().start())
        .unwrap();
    let address = |text| Address::new(text).unwrap();
    let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")]).unwrap();
    let play = |seed| {
        session(
            TcpStream::connect((server.host(), server.port())).unwrap(),
            &envelope,
            seed,
        )
        .unwrap()
    };
    assert!(matches!(play(0), Seen::Sent));
    let mut others = 0;
    std::thread::scope(|scope| {
        let sessions: Vec<_> = (1..60)
            .map(|seed| scope.spawn(move || play(seed)))
            .collect();
        for session in sessions {
            others += usize::from(!matches!(session.join().unwrap(), Seen::Sent));
        }
    });
    assert!(others > 10, "what is changed must show: {others}");
    assert!(matches!(play(0), Seen::Sent), "it still serves");
}
