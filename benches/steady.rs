//! Whether memory is reused while a large message is sent: counts the page faults of a message of
//! 100 MB and of one of 1 GB.
//!
//! ```text
//! cargo bench --bench steady               # some seconds; Linux
//! cargo bench --bench steady -- tls task   # the rows with these words
//! cargo bench --bench steady -- 10 100     # with other sizes, in MB
//! ```
//!
//! An allocator that returns memory to the system and fetches it again gets new pages, and each of
//! them is a minor fault and has to be zeroed. If a message of ten times the size causes more
//! faults than a few buffers have pages, this program fails.
//!
//! Allocators differ: `--target x86_64-unknown-linux-musl` measures that of musl. glibc has an
//! arena for each thread, and the one of the main thread grows in another way, so a message is sent
//! from the main thread, and from a task on a thread of the runtime.
//!
//! strace counts the system calls of one message; the number of `brk`, `madvise`, `mmap` and
//! `munmap` does not depend on the size of FILE. In two terminals:
//!
//! ```text
//! target/release/deps/steady-* sink PIPELINING   # prints its ports: plaintext, TLS; and its CA
//! strace -fce brk,futex,madvise,mmap,munmap,read,writev target/release/deps/steady-* \
//!     send main attachment 'smtps://localhost:PORT?trust=CA' FILE
//! ```

mod support;

use std::path::Path;
use std::process::ExitCode;

use envoi::mail_builder::MessageBuilder;
use envoi::{Address, Attachment, Client, Envelope, Message};
use support::Arguments;
use support::sink::Sink;

/// Both sizes, in MB.
const SIZES: [u64; 2] = [100, 1000];

/// The faults by which two runs may differ: a few buffers of 20 pages more are in use when the
/// threads happen to run differently.
const ALLOWED: u64 = 400;

fn main() -> ExitCode {
    let arguments = support::arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", ..] => support::sink::serve(arguments[1..].to_vec()),
        ["send", thread, what, url, file] => support::report(|| send(thread, what, url, file)),
        _ => return compare(&Arguments::parse(&words)),
    }
    ExitCode::SUCCESS
}

fn compare(arguments: &Arguments) -> ExitCode {
    let sizes = <[u64; 2]>::try_from(&arguments.sizes[..]).unwrap_or(SIZES);
    let mut sinks = [&[][..], &["CHUNKING"]]
        .map(|more| Sink::start(&[&["PIPELINING", "8BITMIME", "SIZE 0"], more].concat()));
    println!(
        "{:36}{:>8} MB {:>8} MB",
        "minor page faults of", sizes[0], sizes[1]
    );
    let mut grown = false;
    for (what, which) in [("attachment", 0), ("attachment", 1), ("raw", 0)] {
        for (how, tls) in [("plain", false), ("TLS", true)] {
            for thread in ["main", "task"] {
                let framing = ["", " by BDAT"][which];
                let name = format!("{what}{framing}, {how}, {thread}");
                if arguments.select(&name) {
                    let faults =
                        sizes.map(|size| faults(&mut sinks[which], tls, thread, what, size));
                    let is_steady = faults[1] <= faults[0] + ALLOWED;
                    let verdict = if is_steady { "" } else { "  GROWN" };
                    println!("{name:36}{:11} {:11}{verdict}", faults[0], faults[1]);
                    grown |= !is_steady;
                }
            }
        }
    }
    if grown {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The minor page faults of a process that sends one message.
fn faults(sink: &mut Sink, tls: bool, thread: &str, what: &str, megabytes: u64) -> u64 {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let size = megabytes * 1_000_000;
    match what {
        "raw" => support::write_raw(file.path(), size, Some(50)),
        // All zeros, which take no room.
        _ => file.as_file().set_len(size).expect("a temporary file"),
    }
    let port = sink.port(tls);
    let url = match tls {
        false => format!("smtp://localhost:{port}?tls=none"),
        true => format!("smtps://localhost:{port}?trust={}", sink.ca_file.display()),
    };
    let path = file.path().to_string_lossy();
    let run = support::run(&["send", thread, what, &url, &path]);
    let arrived = sink.arrived();
    assert!(arrived.messages == 1 && arrived.bytes >= size && arrived.tls == tls);
    run.faults
}

fn send(thread: &str, what: &str, url: &str, file: &str) -> u64 {
    let client = Client::from_url(url).expect("the sink's URL");
    let message = message(what, file.as_ref());
    let sending = async move {
        let receipt = client.send(message).await.expect("the message is taken");
        assert!(receipt.all_accepted());
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match thread {
        "main" => runtime.block_on(sending),
        _ => {
            let task = runtime.spawn(sending);
            runtime.block_on(task).expect("the task ends");
        }
    }
    1
}

fn message(what: &str, file: &Path) -> Message<'static> {
    let address = |text: &str| Address::new(text).expect("an address");
    if what == "raw" {
        let envelope = Envelope::new(address("me@example.org"), [address("you@example.com")]);
        return Message::raw_file(file).envelope(envelope.expect("an envelope"));
    }
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .subject("A benchmark")
        .text_body("Attached.");
    Message::from(mail).attach(Attachment::file(file))
}
