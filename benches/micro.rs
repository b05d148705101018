//! The speed of dot-stuffing and base64 in GB/s, beside a scan by memchr and other encoders.
//!
//! ```text
//! cargo bench --bench micro
//! cargo bench --bench micro -- --rounds 25
//! ```
//!
//! The text has lines of 76 characters. All run in one thread and take turns. A row has the median,
//! the lowest and the highest of the rounds.

mod support;

use std::hint::black_box;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use encodify::base64::MIME;
use envoi::mail_builder::MessageBuilder;
use envoi::proto::{Output, Stuffer};
use envoi::{Attachment, Message};
use memchr::{memchr2_iter, memmem};
use support::{Arguments, Spread};

/// The size of a block: 1,024 lines of base64 before encoding, as envoi reads files.
const BLOCK: usize = 57 * 1024;
const BLOCKS: usize = 256;

type Contender<'a> = (&'static str, Box<dyn FnMut() + 'a>);

fn main() {
    let arguments = support::arguments();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rounds = Arguments::parse(&words).rounds;
    let text = Bytes::from(text());
    let pieces: Vec<Bytes> = (0..BLOCKS).map(|_| text.clone()).collect();
    let bytes = text.len() * BLOCKS;
    println!(
        "Text of 76-character lines, one in fifty begins with a dot; {} MB",
        bytes / 1_000_000
    );
    compare(
        rounds,
        bytes,
        [
            (
                "envoi: line ends checked, dots doubled",
                Box::new(|| stuff(&pieces)),
            ),
            (
                "memchr: each CR and LF found",
                Box::new(|| {
                    for piece in &pieces {
                        black_box(memchr2_iter(b'\r', b'\n', black_box(piece)).count());
                    }
                }),
            ),
            (
                "memchr: each dot after a CRLF found",
                Box::new(|| {
                    let finder = memmem::Finder::new(b"\r\n.");
                    for piece in &pieces {
                        black_box(finder.find_iter(black_box(piece)).count());
                    }
                }),
            ),
        ],
    );

    let data = vec![0x5a; BLOCK];
    let large = Bytes::from(data.repeat(BLOCKS));
    let mut lines = vec![0; MIME.encoded_len(BLOCK)];
    let mut simd_line = vec![0; base64_simd::STANDARD.encoded_length(BLOCK)];
    let mut plain_line = simd_line.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    println!("\nbase64, {} MB before encoding", large.len() / 1_000_000);
    compare(
        rounds,
        large.len(),
        [
            (
                "envoi: an attachment in memory to pieces of a message, with line ends",
                Box::new(|| {
                    runtime.block_on(encode(large.clone()));
                }),
            ),
            (
                "encodify: with line ends",
                Box::new(|| {
                    for _ in 0..BLOCKS {
                        MIME.encode_slice(black_box(&data), black_box(&mut lines))
                            .expect("there is room");
                    }
                }),
            ),
            (
                "base64-simd: without line ends",
                Box::new(|| {
                    for _ in 0..BLOCKS {
                        black_box(base64_simd::STANDARD.encode(
                            black_box(&data),
                            base64_simd::Out::from_slice(&mut simd_line),
                        ));
                    }
                }),
            ),
            (
                "base64: without line ends",
                Box::new(|| {
                    for _ in 0..BLOCKS {
                        STANDARD
                            .encode_slice(black_box(&data), black_box(&mut plain_line))
                            .expect("there is room");
                    }
                }),
            ),
        ],
    );
}

fn compare<const N: usize>(rounds: usize, bytes: usize, mut contenders: [Contender; N]) {
    let mut rates = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (rates, (_, work)) in rates.iter_mut().zip(&mut contenders) {
            let began = Instant::now();
            work();
            rates.push(bytes as f64 / 1e9 / began.elapsed().as_secs_f64());
        }
    }
    let rates = rates.map(Spread::of);
    for ((name, _), rate) in contenders.iter().zip(rates) {
        let share = rate.median / rates[0].median;
        println!("  {rate:23} GB/s, {share:5.2} of envoi's  {name}");
    }
}

fn text() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("text");
    support::write_raw(&path, 800 * 78, Some(50));
    std::fs::read(path).expect("what was written")
}

fn stuff(pieces: &[Bytes]) {
    let (mut stuffer, mut output) = (Stuffer::new(), Output::default());
    for piece in pieces {
        stuffer.push(black_box(piece.clone()).into(), &mut output);
        while !output.is_empty() {
            let written = black_box(output.front()).len();
            output.advance(written);
        }
    }
    black_box(stuffer.bytes());
}

async fn encode(data: Bytes) {
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to("you@example.com")
        .text_body("Attached.");
    let attachment = Attachment::bytes("data.bin", "application/octet-stream", data);
    let prepared = Message::from(mail).attach(attachment).prepare().await;
    let mut body = prepared.expect("the message is in order").into_body();
    while let Some(chunk) = body.chunk().await {
        black_box(chunk.expect("memory is read").bytes());
    }
}
