//! Memory: what a server can make the client hold, and what is left of a password. Both are read
//! from the system, in a process of their own, where no other test's memory is.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::thread;

use envoi::proto::Mechanism;
use envoi::{Connection, Credentials, Endpoint, Secret};

use crate::script::{Act, meet, plain, send, send_reply, up_to};
use crate::server::text_message;

use support::rss::peak_resident;

/// Returns true in a process that runs this test only. Anywhere else, runs the test in such a
/// process.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "ENVOI_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let run = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A reply of 256 KiB is the most that is held; the rest is the allocator's.
const MOST: u64 = 6 << 20;

#[tokio::test(start_paused = true)]
async fn floods_use_bounded_memory() {
    if !is_alone("memory::floods_use_bounded_memory") {
        return;
    }
    let then = |last: &str, acts: &[Act]| [up_to(last), acts.to_vec()].concat();
    let wide = Box::leak(format!("250-{}\r\n", "x".repeat(16_000)).into_boxed_str());
    let words = Box::leak(format!("250-AUTH{}\r\n", " A".repeat(7000)).into_boxed_str());
    let hello = meet(up_to("QUIT"), async |stream| {
        send(stream, &plain(), text_message(0, &["you@example.com"], 100)).await
    });
    assert!(hello.await.result.is_ok());
    let own = || peak_resident(std::process::id()).unwrap();
    let before = own();
    for (attack, acts) in [
        ("a line without an end", vec![Act::Flood("x")]),
        ("a greeting without an end", vec![Act::Flood("220-x\r\n")]),
        (
            "empty capabilities without an end",
            then("EHLO", &[Act::Flood("250-\r\n")]),
        ),
        (
            "wide capabilities without an end",
            then("EHLO", &[Act::Flood(wide)]),
        ),
        (
            "mechanisms without an end",
            then("EHLO", &[Act::Flood(words)]),
        ),
        (
            "unasked replies without an end",
            then("EHLO", &[Act::Flood("250 x\r\n")]),
        ),
        (
            "replies to MAIL without an end",
            then("MAIL", &[Act::Flood("250 x\r\n")]),
        ),
        (
            "replies during the message",
            then("DATA", &[send_reply("354 go\r\n"), Act::Flood("250-x\r\n")]),
        ),
        (
            "replies behind the message",
            then(
                ".",
                &[send_reply("250 stored\r\n"), Act::Flood("250 x\r\n")],
            ),
        ),
        (
            "a parting without an end",
            then("QUIT", &[Act::Flood("221-x\r\n")]),
        ),
    ] {
        for _ in 0..5 {
            let endpoint = plain();
            let message = text_message(0, &["you@example.com"], 100);
            let _met = meet(acts.clone(), async |stream| {
                send(stream, &endpoint, message).await
            })
            .await;
        }
        let grown = own() - before;
        assert!(grown < MOST, "{attack}: {grown} bytes");
    }
}

/// What is looked for is nowhere in memory as it is: not in the program, not in this.
const MASK: u8 = 0x55;

const MASKED: &[u8] = b"=;! 7gf`gfe<6:1a";

fn password() -> String {
    // Made in one piece, so that no half of it is left behind.
    let mut password = String::with_capacity(64);
    password.extend(MASKED.iter().map(|byte| char::from(byte ^ MASK)));
    password
}

/// These bytes and then the password, in base64, masked: never more than three bytes are there as
/// they are.
fn in_base64(before: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = before
        .iter()
        .map(|byte| byte ^ MASK)
        .chain(MASKED.iter().copied())
        .collect();
    let groups = bytes.chunks_exact(3).map(|group| {
        group
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(byte ^ MASK))
    });
    groups
        .flat_map(|bits| [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 63) as usize] ^ MASK))
        .collect()
}

/// How often that which is masked here is in the memory that this process can write to.
fn found(masked: &[u8]) -> usize {
    let (maps, memory) = (
        fs::read_to_string("/proc/self/maps").unwrap(),
        File::open("/proc/self/mem").unwrap(),
    );
    let mut found = 0;
    // The pieces overlap, so that nothing falls between two. Each time the same buffer, which is
    // wiped in the end.
    let mut piece = vec![0; 1 << 20];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'))
            .unwrap();
        let (mut at, to) = (
            u64::from_str_radix(from, 16).unwrap(),
            u64::from_str_radix(to, 16).unwrap(),
        );
        while at < to {
            let length = piece.len().min((to - at) as usize);
            let read = memory.read_at(&mut piece[..length], at).unwrap_or(0);
            if read < length {
                break;
            }
            let (first, rest) = masked.split_first().unwrap();
            let starts = piece[..read]
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == first ^ MASK);
            let is_rest = |start: usize| {
                let behind = piece[..read].get(start + 1..start + masked.len());
                behind.is_some_and(|behind| behind.iter().zip(rest).all(|(a, b)| *a == b ^ MASK))
            };
            found += starts.filter(|(start, _)| is_rest(*start)).count();
            piece.fill(0);
            at += if (length as u64) < to - at {
                (read - masked.len()) as u64
            } else {
                read as u64
            };
        }
    }
    found
}

/// A server that lets everybody in, and remembers nothing.
fn forgetful(mechanism: Mechanism) -> (u16, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = [0; 4096];
        let offer = format!("250-hi\r\n250 AUTH {mechanism}\r\n");
        let replies: &[&str] = match mechanism {
            Mechanism::Login => &[
                "220 hi\r\n",
                &offer,
                "334 \r\n",
                "334 \r\n",
                "235 ok\r\n",
                "221 bye\r\n",
            ],
            Mechanism::CramMd5 => &[
                "220 hi\r\n",
                &offer,
                "334 PDFAYT4=\r\n",
                "235 ok\r\n",
                "221 bye\r\n",
            ],
            _ => &["220 hi\r\n", &offer, "235 ok\r\n", "221 bye\r\n"],
        };
        for reply in replies {
            stream.write_all(reply.as_bytes()).unwrap();
            let _heard = stream.read(&mut heard).unwrap();
            heard.fill(0);
        }
    });
    (port, serving)
}

#[tokio::test]
async fn passwords_are_wiped_from_memory() {
    if !is_alone("memory::passwords_are_wiped_from_memory") {
        return;
    }
    let secret = Secret::new(password());
    assert!(found(MASKED) > 0, "what is there is found");
    drop(secret);
    let forms: [(&str, Vec<u8>); 4] = [
        ("the password", MASKED.to_vec()),
        ("the password in base64", in_base64(b"")),
        ("PLAIN's response", in_base64(b"\0alice\0")),
        (
            "XOAUTH2's response",
            in_base64(b"user=alice\x01auth=Bearer "),
        ),
    ];
    for mechanism in [
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::CramMd5,
        Mechanism::XOAuth2,
    ] {
        let (port, serving) = forgetful(mechanism);
        let credentials = match mechanism {
            Mechanism::XOAuth2 => Credentials::token("alice", password()),
            _ => Credentials::new("alice", password()),
        };
        let endpoint = Endpoint::new("127.0.0.1")
            .port(port)
            .security(envoi::tls::Security::None)
            .auth_in_clear(true)
            .mechanism(mechanism)
            .credentials(credentials);
        let connection = Connection::connect(&endpoint).await.unwrap();
        assert_eq!(connection.mechanism(), Some(mechanism));
        connection.quit().await;
        drop(endpoint);
        serving.join().unwrap();
        for (form, masked) in &forms {
            assert_eq!(found(masked), 0, "{mechanism}: {form} is still in memory");
        }
    }
}

/// The key of RFC 8032, 7.1, masked: as it is, and in PKCS#8 as base64.
#[cfg(feature = "dkim")]
const MASKED_KEYS: [&[u8]; 2] = [
    b"\xc84\xe4\xc8\xba\xa8\x0f5\xef\xd1\x1f\xa1\xc7\xb9y\x91\x11\x1c\x90<.g<L%n\xf9VI\xfb*5",
    b"\x18\x16a\x16\x14\x04\x14\x22\x17\x04\x0c\x11\x1eg\x03\x22\x17\x16\x1c\x10\x1c\x1fd=&\x0f\
      f#z\x03%2 :\x07\x1el\x1f\x19&\x19\x18\x07\x10\x066\x03%0/\x1f%\x12\x0d\x14b'\x14\x186';l2",
];

/// Reading, signing with and dropping a key leaves neither its text nor the key itself.
#[cfg(feature = "dkim")]
#[test]
fn dkim_keys_are_wiped_from_memory() {
    use envoi::dkim::{DkimKey, DkimSigner, MessageSigner};
    if !is_alone("memory::dkim_keys_are_wiped_from_memory") {
        return;
    }
    let [key, text] = MASKED_KEYS;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    // Made in one piece, so that no half of it is left behind.
    let mut pem = zeroize::Zeroizing::new(Vec::with_capacity(200));
    pem.extend_from_slice(b"-----BEGIN PRIVATE KEY-----\n");
    pem.extend(text.iter().map(|byte| byte ^ MASK));
    pem.extend_from_slice(b"\n-----END PRIVATE KEY-----\n");
    fs::write(&path, &*pem).unwrap();
    assert!(found(text) > 0, "what is there is found");
    drop(pem);
    let signer = DkimSigner::new("example.org", "2026", DkimKey::from_file(path).unwrap());
    let mut signing = MessageSigner::new([signer.unwrap()]);
    signing.update("From: alice@example.org\r\n\r\n");
    assert!(found(key) > 0, "the key in use is found");
    signing.finish().unwrap();
    assert_eq!(found(key), 0, "the key is still in memory");
    assert_eq!(found(text), 0, "its text is still in memory");
}
