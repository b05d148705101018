//! The results, as markdown tables and as a picture.

use std::fmt::Write as _;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::support::{Run, Spread};
use crate::{LARGE, Large, ROUND_TRIPS, SMALL};

const BEGIN: &str = "<!-- written by benches/peers -->\n";
const END: &str = "<!-- end -->\n";

pub struct Results {
    pub megabytes: u64,
    pub rounds: usize,
    pub seconds: f64,
    pub load_before: String,
    pub large: Vec<Large>,
    pub small: Vec<[Spread; ROUND_TRIPS.len()]>,
}

/// The load averages over one, five and fifteen minutes.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

impl Results {
    /// Writes `results.md` and `results.svg` into a folder.
    pub fn write(&self, folder: &Path) {
        let table = self.table();
        println!("{table}");
        std::fs::create_dir_all(folder).expect("the folder can be created");
        std::fs::write(folder.join("results.md"), table).expect("results.md can be written");
        self.draw(&folder.join("results.svg"))
            .expect("results.svg can be written");
        println!("Written to {}.", folder.display());
    }

    /// Replaces the tables of `docs/benchmarks.md` and the picture of the repository.
    pub fn update(&self) {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = package.join("../../docs/benchmarks.md");
        let text = std::fs::read_to_string(&page).expect("docs/benchmarks.md can be read");
        let (before, rest) = text.split_once(BEGIN).expect("the begin of the tables");
        let (_, after) = rest.split_once(END).expect("the end of the tables");
        let table = self.table();
        println!("{table}");
        std::fs::write(&page, [before, BEGIN, &table, END, after].concat())
            .expect("docs/benchmarks.md can be written");
        self.draw(&package.join("results.svg"))
            .expect("results.svg can be written");
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let Results {
            megabytes,
            rounds,
            seconds,
            ..
        } = self;
        paragraph(
            &mut text,
            &format!(
                "Large messages: {megabytes} MB each, {rounds} rounds: the median (and the lowest \
                 to the highest) of the time of the whole process, the CPU time of the client, and \
                 its peak memory. Measured on {}.",
                machine(&self.load_before)
            ),
        );
        for (what, name) in [("attachment", "an attachment"), ("raw", "a raw message")] {
            let _ = writeln!(
                text,
                "| {name} | plaintext, time | plaintext, CPU | TLS, time | TLS, CPU | memory |"
            );
            text += "|---|--:|--:|--:|--:|--:|\n";
            for who in LARGE {
                let _ = write!(text, "| {} |", named(who));
                let of = |tls| self.large(what, tls, who);
                for large in [of(false), of(true)] {
                    let (time, cpu) = (large.spread(|run| run.whole), large.spread(|run| run.cpu));
                    let _ = write!(text, " {time} s | {cpu} s |");
                }
                let _ = writeln!(text, " {:.0} MB |", of(true).spread(|run| run.peak));
            }
            text.push('\n');
        }
        for tls in [true, false] {
            let (time, cpu) = (
                self.ratio(tls, |run| run.whole),
                self.ratio(tls, |run| run.cpu),
            );
            let how = if tls { "over TLS" } else { "in plaintext" };
            paragraph(
                &mut text,
                &format!(
                    "An attachment {how}: the fastest of the others takes {time:.1} times as long \
                     as envoi, and the one with the least CPU time uses {cpu:.1} times as much."
                ),
            );
        }
        paragraph(
            &mut text,
            &format!(
                "Small messages (1 KB) per second on one connection, in {rounds} rounds of \
                 {seconds} s, by round-trip time:"
            ),
        );
        text += "| round-trip time |";
        for milliseconds in ROUND_TRIPS {
            let _ = write!(text, " {milliseconds} ms |");
        }
        text += "\n|---|--:|--:|--:|\n";
        for ((name, ..), rates) in SMALL.iter().zip(&self.small) {
            let _ = write!(text, "| {name} |");
            for rate in rates {
                let _ = write!(text, " {rate:.*} |", usize::from(rate.median < 100.0));
            }
            text.push('\n');
        }
        let at = at_20_ms();
        let others = SMALL
            .iter()
            .zip(&self.small)
            .filter(|((_, who, _), _)| !who.starts_with("envoi"));
        let best = others
            .map(|(_, rates)| rates[at].median)
            .fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "\nAt 20 ms, against the best of the others: `send` {:.1} times, `send_all` {:.0} \
             times.",
            self.small[2][at].median / best,
            self.small[0][at].median / best,
        );
        text
    }

    fn large(&self, what: &str, tls: bool, who: &str) -> &Large {
        let of_this = |large: &&Large| (large.what, large.tls, large.who) == (what, tls, who);
        self.large.iter().find(of_this).expect("all were measured")
    }

    /// The ratio of the best of the others to envoi for an attachment, by medians.
    fn ratio(&self, tls: bool, figure: fn(&Run) -> f64) -> f64 {
        let [ours, others @ ..] =
            LARGE.map(|who| self.large("attachment", tls, who).spread(figure).median);
        others.into_iter().fold(f64::INFINITY, f64::min) / ours
    }

    /// Four panels of bars, one below the other: the medians, and the ranges as lines.
    fn draw(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let attachments = |tls: bool, figure: fn(&Run) -> f64| -> Vec<(String, Spread)> {
            let bar = |who: &str| {
                let spread = self.large("attachment", tls, who).spread(figure);
                (who.to_owned(), spread)
            };
            LARGE.map(bar).into()
        };
        let at = at_20_ms();
        let distance =
            [0, 2, 4, 5, 6].map(|row| (SMALL[row].0.replace('`', ""), self.small[row][at]));
        let megabytes = self.megabytes;
        let panels = [
            (
                format!("Attachment of {megabytes} MB over TLS, seconds"),
                attachments(true, |run| run.whole),
            ),
            (
                format!("Attachment of {megabytes} MB in plaintext, seconds"),
                attachments(false, |run| run.whole),
            ),
            (
                format!("Peak memory for {megabytes} MB over TLS, MB"),
                attachments(true, |run| run.peak),
            ),
            (
                "Small messages per second, round-trip time 20 ms".to_owned(),
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
                .map(|(_, spread)| spread.highest)
                .fold(f64::MIN_POSITIVE, f64::max);
            let at = |value: f64| {
                left + (value / longest * f64::from(width - left - 70)).max(1.0) as i32
            };
            for (name, spread) in bars {
                let end = at(spread.median);
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
                let range = [spread.lowest, spread.highest].map(|value| (at(value), y + row / 2));
                area.draw(&PathElement::new(range, BLACK))?;
                let places = if spread.median < 10.0 { 2 } else { 0 };
                let shown = format!("{:.places$}", spread.median);
                let beside = style(13.0).pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new(shown, (range[1].0 + 6, y + row / 2), beside))?;
                y += row;
            }
            y += 4;
        }
        area.present()?;
        Ok(())
    }
}

/// The position of 20 ms in [`ROUND_TRIPS`].
fn at_20_ms() -> usize {
    let mut round_trips = ROUND_TRIPS.iter();
    let found = round_trips.position(|milliseconds| *milliseconds == 20);
    found.expect("20 ms is among them")
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

/// Adds a paragraph, wrapped at 100 columns, and an empty line.
fn paragraph(text: &mut String, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column > 0 {
            let fits = column + 1 + word.len() <= 100;
            text.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        text.push_str(word);
        column += word.len();
    }
    text.push_str("\n\n");
}
