//! Workers are killed, stopped past their lease, and lose their store and their server: each job is
//! sent once, failed with its reason, or unknown because of a kill or a lost connection after the
//! hand-over.
//!
//! The size is set by OUTBOX_JOBS, OUTBOX_KILLS and OUTBOX_CRASHES.

use std::collections::HashMap;
use std::process::Child;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{list, message, outbox, start, status};
use crate::server::{Faults, Seen, Server};
use crate::stores::TestStore;

const WORKERS: usize = 2;
/// The connections of a worker, and so the number of jobs that it works on at one time.
const CONNECTIONS: usize = 4;
const OPTIONS: [&str; 7] = [
    "--until-empty",
    "--lease=2",
    "--backoff=0.2",
    "--timeout=5",
    "--connections=4",
    "--retries=20",
    "--max-age=3600",
];

/// What happens to a worker, or to the store of both.
#[derive(Clone, Copy)]
enum Disturbance {
    Kill,
    /// Its jobs are taken over, and it must not hand over any of them when it goes on.
    Stop,
    Crash,
}

pub fn number(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect(name))
}

fn signal(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(process.id() as i32).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Adds jobs, of which every `refused`th has a recipient that is refused; none for 0.
pub fn add_jobs(store: &TestStore, jobs: usize, refused: usize) {
    let path = message(store);
    thread::scope(|scope| {
        for part in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for job in (part..jobs).step_by(4) {
                    let is_refused = refused > 0 && job % refused == 0;
                    let name = if is_refused { "bad" } else { "job" };
                    let added = outbox(store, "add")
                        .args(["--from", "a@example.org"])
                        .arg(format!("--to={name}{job}@example.com"))
                        .arg(format!("--key={job}"))
                        .arg("--message")
                        .arg(path)
                        .output()
                        .unwrap();
                    assert!(added.status.success(), "{added:?}");
                }
            });
        }
    });
}

fn local_part(job: &Value) -> &str {
    let address = job["recipients"][0]["address"].as_str().unwrap();
    address.split('@').next().unwrap()
}

/// Sends jobs while workers are killed, and checks what became of each.
fn survive(mut store: TestStore) {
    let jobs = number("OUTBOX_JOBS", 200);
    let kills = number("OUTBOX_KILLS", 5);
    let crashes = number("OUTBOX_CRASHES", 1);
    let server = Server::start(Faults {
        lost_replies: 10,
        cut_messages: 20,
        deferred: 30,
        delay: Duration::from_millis(10),
        ..Faults::default()
    });
    add_jobs(&store, jobs, 50);
    let begun = Instant::now();
    let mut workers: Vec<Child> = (0..WORKERS)
        .map(|_| start(&store, &server.url(), &OPTIONS))
        .collect();

    // Each comes after a part of the jobs.
    let mut disturbances = vec![Disturbance::Kill; kills];
    for crash in 1..=crashes {
        let place = disturbances.len() * crash / (crashes + 1);
        disturbances.insert(place, Disturbance::Crash);
    }
    disturbances.insert(disturbances.len() / 3, Disturbance::Stop);
    let mut killed = Vec::new();
    for (number, disturbance) in disturbances.iter().enumerate() {
        let goal = jobs * 9 / 10 * (number + 1) / (disturbances.len() + 1);
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.accepted() < goal && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        let worker = &mut workers[number % WORKERS];
        match disturbance {
            Disturbance::Kill => {
                signal(worker, Signal::KILL);
                killed.push(Instant::now());
                let next = start(&store, &server.url(), &OPTIONS);
                std::mem::replace(worker, next).wait_with_output().unwrap();
            }
            Disturbance::Stop => {
                signal(worker, Signal::STOP);
                // Longer than the lease, and the time until others notice.
                sleep(Duration::from_secs(5));
                signal(worker, Signal::CONT);
            }
            Disturbance::Crash => store.crash(),
        }
    }

    let mut reports = String::new();
    for worker in workers {
        let output = worker.wait_with_output().unwrap();
        reports += &String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        assert!(
            matches!(code, Some(0 | 69 | 79)),
            "exit code {code:?}: {reports}"
        );
    }
    let seconds = begun.elapsed().as_secs_f64();
    let seen = server.seen();
    let counts = status(&store);
    println!("{counts} in {seconds:.1} s\n{reports}");
    assert_eq!(
        (&counts["waiting"], &counts["running"]),
        (&0.into(), &0.into())
    );
    check(&store, &seen, &killed, jobs);
}

/// Compares the store with what the server saw.
fn check(store: &TestStore, seen: &HashMap<String, Seen>, killed: &[Instant], jobs: usize) {
    let mut found = 0;
    // For each kill, the jobs whose reply had arrived and was on its way to the store: their
    // connections may have served another job meanwhile.
    let mut unstored = vec![0; killed.len()];
    for state in ["sent", "failed", "unknown"] {
        for job in list(store, state) {
            found += 1;
            let name = local_part(&job);
            let seen = seen.get(name).copied().unwrap_or_default();
            match state {
                "sent" => assert_eq!(seen.accepted, 1, "{job}"),
                "failed" => {
                    assert_eq!(seen.accepted, 0, "{job}");
                    assert!(name.starts_with("bad"), "{job}");
                    assert!(job["reason"].as_str().unwrap().contains("550"), "{job}");
                }
                _ => {
                    assert!(seen.accepted <= 1, "{job} {seen:?}");
                    if !seen.cut {
                        let accepted = seen.accepted_at.expect("it was accepted or cut");
                        let kill = killed.partition_point(|kill| *kill < accepted);
                        assert!(kill < killed.len(), "not explained: {job} {seen:?}");
                        unstored[kill] += 1;
                        assert!(unstored[kill] <= CONNECTIONS, "too many: {job} {seen:?}");
                    }
                    assert!(job["reason"].is_string(), "{job}");
                }
            }
        }
    }
    assert_eq!(found, jobs);
}

#[test]
fn sqlite() {
    survive(TestStore::sqlite());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn postgres() {
    survive(TestStore::postgres());
}

#[test]
#[ignore = "needs Redis"]
fn redis() {
    survive(TestStore::redis());
}
