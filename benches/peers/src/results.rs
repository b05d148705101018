//! What was measured, as a markdown table and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{LARGE, Large, ROUND_TRIPS, SMALL};

pub struct Results {
    pub megabytes: u64,
    pub rounds: usize,
    pub seconds: f64,
    pub load_before: String,
    pub large: Vec<Large>,
    pub small: Vec<[f64; ROUND_TRIPS.len()]>,
}

/// How many processes wanted the processors, over one, five and fifteen minutes.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

impl Results {
    /// `results.md` and `results.svg`.
    pub fn write(&self, folder: &Path) {
        let table = self.table();
        println!("{table}");
        std::fs::create_dir_all(folder).expect("a folder for the results");
        std::fs::write(folder.join("results.md"), table).expect("room for the results");
        self.draw(&folder.join("results.svg"))
            .expect("room for the picture");
        println!("Written to {}.", folder.display());
    }

    fn table(&self) -> String {
        let mut text = String::from(
            "<!-- Written by `cargo run --release -- --out .` in benches/peers. -->\n\n",
        );
        let Results {
            megabytes,
            rounds,
            seconds,
            ..
        } = self;
        let _ = writeln!(
            text,
            "Large messages: {megabytes} MB each, the fastest of {rounds} rounds in which the \
                clients take turns, the whole process timed. Measured on {}.\n",
            machine(&self.load_before)
        );
        text += "| time, and CPU time | attachment, plaintext | attachment, TLS | ready, \
            plaintext | ready, TLS | peak memory |\n";
        text += "|---|--:|--:|--:|--:|--:|\n";
        for who in LARGE {
            let _ = write!(text, "| {} |", named(who));
            let runs = || self.large.iter().filter(move |large| large.who == who);
            for Large { seconds, cpu, .. } in runs() {
                let _ = write!(text, " {seconds:.2} s, {cpu:.2} s |");
            }
            let _ = writeln!(
                text,
                " {:.0} MB |",
                runs().map(|large| large.peak).fold(0.0, f64::max)
            );
        }
        text.push('\n');
        for tls in [true, false] {
            let (time, cpu) = (
                self.ratio(tls, |large| large.seconds),
                self.ratio(tls, |large| large.cpu),
            );
            let how = if tls { "over TLS" } else { "in plaintext" };
            let _ = writeln!(
                text,
                "An attachment {how}: the fastest of the others takes {time:.1} times as long as \
                    envoi, and the thriftiest {cpu:.1} \
                 times its CPU time.\n"
            );
        }
        let _ = writeln!(
            text,
            "Small messages (1 KB), messages a second on one connection, the most in {rounds} \
                rounds of {seconds} s:\n"
        );
        text += "| round trip |";
        for milliseconds in ROUND_TRIPS {
            let _ = write!(text, " {milliseconds} ms |");
        }
        text += "\n|---|--:|--:|--:|\n";
        for ((name, ..), rates) in SMALL.iter().zip(&self.small) {
            let _ = write!(text, "| {name} |");
            for rate in rates {
                let _ = write!(text, " {rate:.*} |", usize::from(*rate < 100.0));
            }
            text.push('\n');
        }
        let at = ROUND_TRIPS
            .iter()
            .position(|milliseconds| *milliseconds == 20)
            .expect("20 ms is among them");
        let others = SMALL
            .iter()
            .zip(&self.small)
            .filter(|((_, who, _), _)| !who.starts_with("envoi"));
        let best = others.map(|(_, rates)| rates[at]).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "\nAt 20 ms, against the best of the others: `send` {:.1} times, `send_all` {:.0} \
                times.\n",
            self.small[2][at] / best,
            self.small[0][at] / best,
        );
        text += "What differs: lettre, mail-send and async-smtp take an attachment as bytes in \
            memory, so the file is read whole \
                 first. async-smtp builds no messages and makes no TLS connection: mail-builder \
                 and tokio-rustls do that for it. \
                 None of the three has a stream of messages, or CHUNKING in the call that sends a \
                 message. A message takes async-smtp \
                 two round trips (PIPELINING), mail-send and lettre four, and lettre's pool a \
                 fifth (NOOP). What lettre and \
                 mail-send lose at 0 ms is Nagle's algorithm against the delayed acknowledgement: \
                 they write the end of a \
                 message on its own, and leave TCP_NODELAY off.\n";
        text
    }

    /// How many times as much the best of the others needs for an attachment.
    fn ratio(&self, tls: bool, figure: fn(&Large) -> f64) -> f64 {
        let these = || {
            self.large
                .iter()
                .filter(move |large| large.what == "attachment" && large.tls == tls)
        };
        let ours = these()
            .filter(|large| large.who == "envoi")
            .map(figure)
            .fold(f64::INFINITY, f64::min);
        these()
            .filter(|large| large.who != "envoi")
            .map(figure)
            .fold(f64::INFINITY, f64::min)
            / ours
    }

    /// Four panels of bars, one below the other.
    fn draw(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let attachments = |tls: bool, figure: fn(&Large) -> f64| -> Vec<(String, f64)> {
            let these = self
                .large
                .iter()
                .filter(|large| large.what == "attachment" && large.tls == tls);
            these
                .map(|large| (large.who.to_owned(), figure(large)))
                .collect()
        };
        let at = ROUND_TRIPS
            .iter()
            .position(|milliseconds| *milliseconds == 20)
            .expect("20 ms is among them");
        let distance =
            [0, 2, 4, 5, 6].map(|row| (SMALL[row].0.replace('`', ""), self.small[row][at]));
        let megabytes = self.megabytes;
        let panels = [
            (
                format!("Attachment of {megabytes} MB over TLS, seconds"),
                attachments(true, |large| large.seconds),
            ),
            (
                format!("Attachment of {megabytes} MB in plaintext, seconds"),
                attachments(false, |large| large.seconds),
            ),
            (
                format!("Peak memory for {megabytes} MB over TLS, MB"),
                attachments(true, |large| large.peak),
            ),
            (
                "Small messages a second, round trip of 20 ms".to_owned(),
                distance.into(),
            ),
        ];
        let rows: usize = panels.iter().map(|(_, bars)| bars.len()).sum();
        let (row, gap, left, width) = (22, 44, 215, 720);
        let height = rows as i32 * row + panels.len() as i32 * gap + 10;
        let area = SVGBackend::new(path, (width as u32, height as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        let style = |size: f64| {
            ("sans-serif", size)
                .into_font()
                .color(&RGBColor(40, 40, 40))
        };
        let right = style(13.0).pos(Pos::new(HPos::Right, VPos::Center));
        let mut y = 0;
        for (title, bars) in panels {
            area.draw(&Text::new(title, (10, y + 16), style(15.0)))?;
            y += gap - 4;
            let longest = bars
                .iter()
                .map(|(_, value)| *value)
                .fold(f64::MIN_POSITIVE, f64::max);
            for (name, value) in bars {
                let end = left + (value / longest * f64::from(width - left - 70)).max(1.0) as i32;
                let color = if name.starts_with("envoi") {
                    RGBColor(24, 119, 84)
                } else {
                    RGBColor(158, 167, 179)
                };
                area.draw(&Text::new(name, (left - 8, y + row / 2), right.clone()))?;
                area.draw(&Rectangle::new(
                    [(left, y + 3), (end, y + row - 3)],
                    color.filled(),
                ))?;
                let shown = format!("{value:.*}", if value < 10.0 { 2 } else { 0 });
                let beside = style(13.0).pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new(shown, (end + 6, y + row / 2), beside))?;
                y += row;
            }
            y += 4;
        }
        area.present()?;
        Ok(())
    }
}

/// A client and its version, from the lock file.
fn named(who: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let package = lock
        .split("[[package]]")
        .find(|package| package.contains(&format!("name = \"{who}\"\n")));
    let version = package
        .and_then(|package| package.split("version = \"").nth(1))
        .and_then(|rest| rest.split('"').next());
    format!("{who} {}", version.expect("its version"))
}

fn machine(load_before: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, key: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: f64 = of(&read("/proc/meminfo"), "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or_default();
    let rustc = std::process::Command::new("rustc")
        .arg("--version")
        .output();
    let rustc = rustc
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    format!(
        "{cores} cores of {}, {:.0} GB, Linux {}, {rustc}; load {load_before} before, {} after",
        of(&read("/proc/cpuinfo"), "model name"),
        memory / 1e6,
        read("/proc/sys/kernel/osrelease").trim(),
        load(),
    )
}
