//! Shared by the benchmarks: the server, the resource usage of a process, and figures.
#![allow(dead_code)] // Each benchmark uses a part.

pub mod bare;
pub mod delay;
pub mod sink;

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

/// The resources that a run used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Wall-clock time.
    pub seconds: f64,
    /// CPU time, user and system.
    pub cpu: f64,
    /// Peak resident memory, in MB.
    pub peak: f64,
    /// The number of minor page faults: of pages that were new to the process.
    pub faults: u64,
    /// The number of messages sent.
    pub messages: u64,
    /// The time of the whole process.
    pub whole: f64,
}

/// Measures `work`, which returns the number of messages that it sent, and reports to the process
/// that started this one in [`run`]. Only
/// the memory and the page faults include earlier usage.
pub fn report(work: impl FnOnce() -> u64) {
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let messages = work();
    println!(
        "{} {} {} {} {messages}",
        began.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        peak_megabytes(),
        minor_faults()
    );
}

/// Runs this program again with other arguments, and returns the figures that it prints.
pub fn figures(arguments: &[&str]) -> Vec<f64> {
    let program = std::env::current_exe().expect("this program's own path");
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("it can be run again");
    assert!(output.status.success(), "{arguments:?} failed");
    let text = String::from_utf8(output.stdout).expect("figures");
    let figures = text.split_whitespace().map(|figure| figure.parse());
    figures.collect::<Result<_, _>>().expect("figures")
}

/// Runs this program again with other arguments, and returns what it [reports](report).
pub fn run(arguments: &[&str]) -> Run {
    let began = Instant::now();
    let figures = figures(arguments);
    let whole = began.elapsed().as_secs_f64();
    let [seconds, cpu, peak, faults, messages] = figures[..] else {
        panic!("{arguments:?} said {figures:?}")
    };
    Run {
        seconds,
        cpu,
        peak,
        faults: faults as u64,
        messages: messages as u64,
        whole,
    }
}

/// The arguments of a bench: `--rounds N`, sizes in MB, and words that select rows.
pub struct Arguments {
    pub rounds: usize,
    pub sizes: Vec<u64>,
    pub words: Vec<String>,
}

impl Arguments {
    /// Nine rounds, or as many as the arguments say.
    pub fn parse(arguments: &[&str]) -> Self {
        let mut parsed = Arguments {
            rounds: 9,
            sizes: Vec::new(),
            words: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match (*argument, argument.parse()) {
                ("--rounds", _) => {
                    let number = rest.next().and_then(|number| number.parse().ok());
                    parsed.rounds = number.filter(|rounds| *rounds > 0).expect("--rounds N");
                }
                (_, Ok(size)) => parsed.sizes.push(size),
                (word, Err(_)) => parsed.words.push(word.to_lowercase()),
            }
        }
        parsed
    }

    /// Whether a row is selected: its name contains each word.
    pub fn select(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.words.iter().all(|word| name.contains(word))
    }
}

/// The program's arguments, without the one that cargo adds.
pub fn arguments() -> Vec<String> {
    let arguments = std::env::args().skip(1);
    arguments.filter(|argument| argument != "--bench").collect()
}

/// Runs of envoi and of its limit. Both run once in each round, so that changes of the machine's
/// speed affect both.
pub struct Rounds(Vec<[Run; 2]>);

impl Rounds {
    /// `round` runs envoi, then the limit.
    pub fn measure(count: usize, mut round: impl FnMut() -> [Run; 2]) -> Self {
        Rounds((0..count).map(|_| round()).collect())
    }

    /// The medians of a figure, of envoi and of the limit.
    pub fn medians(&self, figure: impl Fn(&Run) -> f64) -> [f64; 2] {
        [0, 1].map(|which| median(self.0.iter().map(|round| figure(&round[which]))))
    }

    /// The ratio of envoi's speed to the limit's in each round.
    pub fn speed(&self) -> Spread {
        Spread::of(
            self.0
                .iter()
                .map(|[envoi, limit]| limit.seconds / envoi.seconds),
        )
    }

    /// The ratio of envoi's CPU time to the limit's in each round.
    pub fn cpu(&self) -> Spread {
        Spread::of(self.0.iter().map(|[envoi, limit]| envoi.cpu / limit.cpu))
    }
}

/// The lowest, the median and the highest of several figures.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub lowest: f64,
    pub median: f64,
    pub highest: f64,
}

impl Spread {
    /// There must be at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Spread {
            lowest: figures[0],
            median: figures[figures.len() / 2],
            highest: figures[figures.len() - 1],
        }
    }
}

/// As `0.95 (0.87 to 1.02)`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = f.precision().unwrap_or(2);
        let (lowest, median, highest) = (self.lowest, self.median, self.highest);
        let text = format!("{median:.places$} ({lowest:.places$} to {highest:.places$})");
        // `pad` would take the precision for a length.
        write!(f, "{text:width$}", width = f.width().unwrap_or_default())
    }
}

/// The CPU time of this process so far, user and system.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The minor page faults of all threads of this process (proc(5): minflt, the tenth field).
fn minor_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    // The second field, the name in parentheses, may contain spaces.
    let (_, fields) = stat.rsplit_once(')').expect("the name of this process");
    let field = fields.split_whitespace().nth(7).expect("a tenth field");
    field.parse().expect("a number")
}

/// The kernel's high-water mark (proc(5): VmHWM).
fn peak_megabytes() -> f64 {
    status("VmHWM:") * 1024.0 / 1e6
}

/// A figure of this process in proc(5), such as `VmRSS:`, in KiB.
pub fn status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).expect("a figure")
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

/// Writes a raw message: text in lines of 76 characters, one in `dots` of which begins with a dot.
pub fn write_raw(path: &Path, size: u64, dots: Option<u32>) {
    let header = b"From: <me@example.org>\r\nTo: <you@example.com>\r\nSubject: Raw\r\n\r\n";
    let words = " line.of text".repeat(6);
    let mut body = Vec::new();
    for number in 0_u32.. {
        if body.len() > BLOCK {
            break;
        }
        let has_dot = dots.is_some_and(|dots| number.is_multiple_of(dots));
        let first = if has_dot { '.' } else { ' ' };
        body.extend_from_slice(format!("{first}{number:09}{}\r\n", &words[..66]).as_bytes());
    }
    let mut next = header.to_vec();
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
    Spread::of(figures).median
}
