//! A proxy on the loopback interface that simulates distance: it delays each byte by half the
//! round-trip time, in both directions, without limiting the throughput.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Listens in the background until the program ends; returns the port.
pub fn start(to: u16, round_trip: Duration) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("a port").port();
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).expect("the sink is there");
            let clone = |stream: &TcpStream| {
                stream.set_nodelay(true).expect("a socket option");
                stream.try_clone().expect("a socket")
            };
            delay(clone(&near), clone(&far), round_trip / 2);
            delay(far, near, round_trip / 2);
        }
    });
    port
}

fn delay(mut from: TcpStream, mut to: TcpStream, time: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            if sender
                .send((Instant::now() + time, buffer[..count].to_vec()))
                .is_err()
                || count == 0
            {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
