//! Shared by the benchmarks: the server, the resource usage of a process, and figures.
#![allow(dead_code)] // Each benchmark uses a part.

pub mod bare;
pub mod sink;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// The resources that a run used.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Wall-clock time.
    pub seconds: f64,
    /// CPU time, user and system.
    pub cpu: f64,
    /// Peak resident memory, in MB.
    pub peak: f64,
    /// The number of messages sent.
    pub messages: u64,
    /// The time of the whole process.
    pub whole: f64,
}

/// Measures `work`, which returns the number of messages that it sent, and reports to the process
/// that started this one in [`run`]. Only the memory includes earlier usage.
pub fn report(work: impl FnOnce() -> u64) {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let messages = work();
    println!(
        "{} {} {} {messages}",
        began.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        peak_megabytes()
    );
}

/// Runs this program again with other arguments, and returns what it reports.
pub fn run(arguments: &[&str]) -> Run {
    let program = std::env::current_exe().expect("this program's own path");
    let began = Instant::now();
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("it can be run again");
    let whole = began.elapsed().as_secs_f64();
    assert!(output.status.success(), "{arguments:?} failed");
    let text = String::from_utf8(output.stdout).expect("figures");
    let figures: Vec<f64> = text
        .split_whitespace()
        .map(|figure| figure.parse().expect("a figure"))
        .collect();
    let [seconds, cpu, peak, messages] = figures[..] else {
        panic!("{arguments:?} said {text:?}")
    };
    Run {
        seconds,
        cpu,
        peak,
        messages: messages as u64,
        whole,
    }
}

/// The CPU time of this process so far, user and system.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The kernel's high-water mark (proc(5): VmHWM).
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a line on memory");
    let kibibytes: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kibibytes * 1024.0 / 1e6
}

/// Writes an incompressible file (xorshift, Marsaglia 2003) and syncs it, so that nothing is
/// written back during the measurement.
pub fn write_noise(path: &Path, size: u64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::new();
    write_blocks(path, size, || {
        block.clear();
        for _ in 0..BLOCK / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        block.clone()
    });
}

/// Writes a raw message: text in lines of 76 characters, one in fifty of which begins with a dot.
pub fn write_ready(path: &Path, size: u64) {
    let header = b"From: <me@example.org>\r\nTo: <you@example.com>\r\nSubject: Ready\r\n\r\n";
    let mut text = header.to_vec();
    for number in 0_u32.. {
        let dot = if number.is_multiple_of(50) { '.' } else { ' ' };
        text.extend_from_slice(
            format!(
                "{dot}{number:09}{}\r\n",
                " line.of text".repeat(6).split_at(66).0
            )
            .as_bytes(),
        );
        if text.len() > BLOCK {
            break;
        }
    }
    let body = text.split_off(header.len());
    let mut next = text;
    write_blocks(path, size, || std::mem::replace(&mut next, body.clone()));
}

const BLOCK: usize = 1 << 20;

fn write_blocks(path: &Path, size: u64, mut block: impl FnMut() -> Vec<u8>) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).expect("room for a file");
    let mut left = size;
    while left > 0 {
        let block = block();
        let piece = &block[..block.len().min(usize::try_from(left).unwrap_or(BLOCK))];
        file.write_all(piece).expect("room for a file");
        left -= piece.len() as u64;
    }
    file.sync_all().expect("room for a file");
}

pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
