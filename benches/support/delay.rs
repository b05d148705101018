//! A connection with a long round-trip time: bytes are passed on after a delay, in both directions,
//! and any number of them may be on their way.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A port whose connections lead to another one, with a delay. Its threads end with the process.
pub struct Delay {
    port: u16,
}

impl Delay {
    /// Half of the round-trip time is spent in each direction.
    pub fn start(to: u16, round_trip: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("a port").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).expect("the sink");
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a socket option");
                }
                let copies = [&client, &server].map(|stream| stream.try_clone().expect("a socket"));
                let [client_copy, server_copy] = copies;
                pass_on(client, server_copy, round_trip / 2);
                pass_on(server, client_copy, round_trip / 2);
            }
        });
        Delay { port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Passes bytes on by two threads: one reads at once, the other one writes when it is time.
fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender
                .send((Instant::now() + delay, buffer[..count].to_vec()))
                .is_err()
            {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
