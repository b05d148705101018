//! The commands and their exit codes.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::program::{add, list, message, outbox, run, start, status, stderr, stdout, wait_until};
use crate::server::{Faults, Server};
use crate::stores::{TestStore, free_port};
use crate::survival::add_jobs;

const TO: [&str; 1] = ["job@example.com"];
const QUICK: [&str; 3] = ["--until-empty", "--backoff=0.1", "--timeout=5"];

fn terminate(worker: &Child) {
    let pid = Pid::from_raw(worker.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}

/// A key adds one job, and refuses another message and envelope.
fn keys_add_once(store: &TestStore) {
    let first = add(store, &["one@example.com", "two@example.com"], &["--key=k"]);
    // The order of the recipients does not count.
    let again = add(store, &["two@example.com", "one@example.com"], &["--key=k"]);
    assert_eq!(first, again);
    let other = outbox(store, "add")
        .args([
            "--from=a@example.org",
            "--to=one@example.com",
            "--key=k",
            "--message",
        ])
        .arg(message(store))
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(65));
    assert!(stderr(&other).contains(&first), "{}", stderr(&other));
    assert_eq!(status(store)["waiting"], 1);
}

/// A job is listed as documented, in each state.
fn list_shows_jobs(store: &TestStore) {
    let server = Server::start(Faults::default());
    let id = add(store, &["job@example.com", "bad@example.com"], &["--key=k"]);
    let waiting = list(store, "waiting").remove(0);
    assert_eq!(waiting["id"], *id);
    assert_eq!(waiting["attempts"], 0);
    assert_eq!(waiting["next"], waiting["added"]);
    assert_eq!(
        waiting["recipients"][0],
        json!({"address": "job@example.com", "outcome": "not-tried", "code": null, "text": null})
    );
    assert_eq!(run(store, &server.url(), &QUICK).status.code(), Some(0));
    let sent = list(store, "sent").remove(0);
    assert_eq!(sent["key"], "k");
    assert_eq!(sent["attempts"], 1);
    assert_eq!(sent["next"], Value::Null);
    assert_eq!(sent["reply"]["code"], 250);
    assert_eq!(
        sent["recipients"],
        json!([
            {"address": "job@example.com", "outcome": "accepted", "code": 250, "text": "Ok"},
            {"address": "bad@example.com", "outcome": "refused", "code": 550,
                "text": "No such user"},
        ])
    );
    let counts = json!({"waiting": 0, "running": 0, "sent": 1, "failed": 0, "unknown": 0});
    assert_eq!(status(store), counts);
}

/// 4xx uses up the retries, 5xx fails at once.
fn refusals_fail(store: &TestStore) {
    let server = Server::start(Faults {
        deferred: 1000,
        ..Faults::default()
    });
    add(store, &["later@example.com"], &[]);
    add(store, &["bad@example.com"], &[]);
    let mut options = QUICK.to_vec();
    options.push("--retries=2");
    let ended = run(store, &server.url(), &options);
    assert_eq!(ended.status.code(), Some(69), "{}", stderr(&ended));
    let failed = list(store, "failed");
    assert_eq!(failed[0]["attempts"], 3);
    assert!(
        failed[0]["reason"].as_str().unwrap().contains("451"),
        "{}",
        failed[0]
    );
    assert_eq!(failed[0]["recipients"][0]["outcome"], "refused");
    assert_eq!(failed[1]["attempts"], 1);
    assert!(
        failed[1]["reason"].as_str().unwrap().contains("550"),
        "{}",
        failed[1]
    );
    assert_eq!(server.seen()["later"].tried, 3);
}

/// A lost reply makes a job unknown; it is sent again only when that is asked for.
fn unknown_jobs_are_resolved(store: &TestStore) {
    let server = Server::start(Faults {
        lost_replies: 1000,
        ..Faults::default()
    });
    let one = add(store, &["one@example.com"], &[]);
    let two = add(store, &["two@example.com"], &[]);
    assert_eq!(run(store, &server.url(), &QUICK).status.code(), Some(79));
    let unknown = list(store, "unknown");
    assert_eq!(unknown.len(), 2);
    assert!(unknown[0]["reason"].is_string(), "{}", unknown[0]);
    assert_eq!(unknown[0]["recipients"][0]["outcome"], "unknown");
    // Nothing is due any more.
    assert_eq!(run(store, &server.url(), &QUICK).status.code(), Some(0));
    assert_eq!(server.accepted(), 2);

    let resolve = |id: &str, how: &str| {
        let output = outbox(store, "resolve").args([id, "--as", how]).output();
        output.unwrap().status.code()
    };
    assert_eq!(resolve(&one, "sent"), Some(0));
    assert_eq!(resolve(&one, "sent"), Some(64));
    assert_eq!(resolve("01ARZ3NDEKTSV4RRFFQ69G5FAV", "sent"), Some(64));
    assert_eq!(list(store, "sent").len(), 1);
    assert_eq!(resolve(&two, "again"), Some(0));
    let healthy = Server::start(Faults::default());
    assert_eq!(run(store, &healthy.url(), &QUICK).status.code(), Some(0));
    assert_eq!(healthy.seen()["two"].accepted, 1);
    assert_eq!(healthy.accepted(), 1);
}

/// A failed job waits again.
fn failed_jobs_are_retried(store: &TestStore) {
    let server = Server::start(Faults {
        deferred: 1000,
        ..Faults::default()
    });
    let id = add(store, &TO, &[]);
    let mut options = QUICK.to_vec();
    options.push("--retries=0");
    assert_eq!(run(store, &server.url(), &options).status.code(), Some(69));
    let retry = || outbox(store, "retry").arg(&id).output().unwrap();
    assert_eq!(retry().status.code(), Some(0));
    assert_eq!(retry().status.code(), Some(64));
    let healthy = Server::start(Faults::default());
    assert_eq!(run(store, &healthy.url(), &QUICK).status.code(), Some(0));
    assert_eq!(list(store, "sent")[0]["id"], *id);
}

/// A job that failed for its age waits anew, and all of them have the last reason, tried or not.
fn old_jobs_are_retried(store: &TestStore) {
    let ids: Vec<String> = (0..3)
        .map(|number| add(store, &[&format!("job{number}@example.com")], &[]))
        .collect();
    let options = ["--until-empty", "--max-age=2", "--connections=1"];
    let ended = run(store, "smtp://127.0.0.1:1?tls=none", &options);
    assert_eq!(ended.status.code(), Some(69), "{}", stderr(&ended));
    let failed = list(store, "failed");
    assert_eq!(failed.len(), 3);
    for job in failed {
        let reason = job["reason"].as_str().unwrap();
        assert!(reason.contains("--max-age: no connection"), "{reason}");
    }
    for id in ids {
        let retried = outbox(store, "retry").arg(id).output().unwrap();
        assert!(retried.status.success(), "{}", stderr(&retried));
    }
    let healthy = Server::start(Faults::default());
    let ended = run(store, &healthy.url(), &options);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert_eq!(status(store)["sent"], 3);
}

/// Each recipient is sent to once where the server takes fewer at a time.
fn recipients_are_split(store: &TestStore) {
    for announces in [true, false] {
        let server = Server::start(Faults {
            recipients: Some(2),
            announces,
            ..Faults::default()
        });
        let to: Vec<String> = (0..7).map(|n| format!("job{n}@example.com")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        add(store, &to, &[]);
        let mut options = QUICK.to_vec();
        options.push("--retries=0");
        let ended = run(store, &server.url(), &options);
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        let seen = server.seen();
        assert_eq!(server.accepted(), 7, "announced: {announces}");
        assert!(seen.values().all(|seen| seen.accepted == 1), "{seen:?}");
    }
    assert_eq!(status(store)["sent"], 2);
}

/// Groups of recipients that are refused for now are tried again after the backoff, all of them.
fn refused_groups_back_off(store: &TestStore) {
    let server = Server::start(Faults {
        recipients: Some(2),
        announces: true,
        deferred: 1000,
        ..Faults::default()
    });
    add(
        store,
        &["a@example.com", "b@example.com", "c@example.com"],
        &[],
    );
    let mut options = QUICK.to_vec();
    options.push("--retries=1");
    assert_eq!(run(store, &server.url(), &options).status.code(), Some(69));
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.values().all(|seen| seen.tried == 2), "{seen:?}");
}

/// Jobs for later do not hold `--until-empty`, and are sent in time.
fn jobs_wait_for_their_time(store: &TestStore) {
    let server = Server::start(Faults::default());
    add(
        store,
        &["later@example.com"],
        &["--at=2099-01-01T00:00:00+01:00"],
    );
    add(store, &["past@example.com"], &["--at=2001-01-01T00:00:00Z"]);
    assert_eq!(run(store, &server.url(), &QUICK).status.code(), Some(0));
    assert_eq!(server.accepted(), 1);
    assert_eq!(list(store, "waiting")[0]["next"], "2098-12-31T23:00:00Z");
}

/// Sent jobs are purged; their keys are still known.
fn purge_keeps_keys(store: &TestStore) {
    let server = Server::start(Faults::default());
    let id = add(store, &TO, &["--key=k"]);
    add(
        store,
        &["later@example.com"],
        &["--at=2099-01-01T00:00:00Z"],
    );
    assert_eq!(run(store, &server.url(), &QUICK).status.code(), Some(0));
    let purge = |days: &str| {
        let output = outbox(store, "purge").args(["--older-than", days]).output();
        stdout(&output.unwrap())
    };
    assert_eq!(purge("1"), "0\n");
    assert_eq!(purge("0"), "1\n");
    assert_eq!(status(store)["sent"], 0);
    assert_eq!(status(store)["waiting"], 1);
    assert_eq!(add(store, &TO, &["--key=k"]), id);
    assert_eq!(status(store)["waiting"], 1);
}

/// A message of many pieces arrives whole.
fn large_messages_are_streamed(store: &TestStore) {
    let server = Server::start(Faults::default());
    let path = store.folder().join("large.eml");
    let mut text = String::from("Subject: Large\r\n\r\n");
    text.push_str(&"0123456789abcdef\r\n".repeat(200_000));
    std::fs::write(&path, &text).unwrap();
    let added = outbox(store, "add")
        .args(["--from=<>", "--to=job@example.com", "--message"])
        .arg(path)
        .output()
        .unwrap();
    assert!(added.status.success(), "{}", stderr(&added));
    let ended = run(store, &server.url(), &QUICK);
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert_eq!(server.seen()["job"].bytes, text.len());
}

/// Tables of a newer version are left alone.
fn newer_tables_are_refused(store: &TestStore) {
    add(store, &TO, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.make_newer());
    let server = Server::start(Faults::default());
    let refused = [
        outbox(store, "status").output().unwrap(),
        run(store, &server.url(), &QUICK),
    ];
    for refused in refused {
        assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
        assert!(
            stderr(&refused).contains("newer version"),
            "{}",
            stderr(&refused)
        );
    }
    assert_eq!(server.accepted(), 0);
}

/// SIGTERM leaves no job running, whatever the worker is doing.
fn sigterm_returns_claimed_jobs(store: &TestStore) {
    const JOBS: usize = 80;
    let server = Server::start(Faults {
        delay: Duration::from_millis(2),
        ..Faults::default()
    });
    add_jobs(store, JOBS, 0);
    for part in 1..8 {
        let before = server.accepted();
        if before == JOBS {
            break;
        }
        let worker = start(store, &server.url(), &["--connections=8"]);
        // At least one is this worker's: a signal that came before its handler would kill it.
        let goal = (part * JOBS / 8).max(before + 1);
        wait_until("messages are accepted", || server.accepted() >= goal);
        terminate(&worker);
        let ended = worker.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        assert_eq!(status(store)["running"], 0);
    }
    assert_eq!(run(store, &server.url(), &QUICK).status.code(), Some(0));
    assert_eq!(server.accepted(), JOBS);
}

/// A job whose worker is killed after the hand-over is unknown, and the attempt counts.
fn killed_workers_leave_unknown_jobs(store: &TestStore) {
    let server = Server::start(Faults {
        delay: Duration::from_secs(60),
        ..Faults::default()
    });
    add(store, &TO, &[]);
    let mut worker = start(store, &server.url(), &["--lease=1"]);
    let is_handed_over = || {
        let running = list(store, "running");
        running.first().is_some_and(|job| job["attempts"] == 1)
    };
    wait_until("the job is handed over", is_handed_over);
    worker.kill().unwrap();
    worker.wait().unwrap();
    let mut options = QUICK.to_vec();
    options.push("--lease=1");
    assert_eq!(run(store, &server.url(), &options).status.code(), Some(79));
    let unknown = list(store, "unknown").remove(0);
    assert_eq!(unknown["attempts"], 1);
    assert_eq!(unknown["recipients"][0]["outcome"], "unknown");
    assert!(unknown["reason"].is_string(), "{unknown}");
}

/// A recipient whose reply is lost stays unknown, though it was refused for now before.
fn lost_replies_to_recipients_are_unknown(store: &TestStore) {
    let server = Server::start(Faults {
        lost_replies: 1000,
        lmtp: true,
        ..Faults::default()
    });
    add(store, &["busy-a@example.com", "busy-b@example.com"], &[]);
    let ended = run(store, &server.url(), &QUICK);
    assert_eq!(ended.status.code(), Some(79), "{}", stderr(&ended));
    assert_eq!(server.seen()["busy-a"].accepted, 1);
    assert_eq!(server.seen()["busy-b"].accepted, 1);
    let unknown = list(store, "unknown").remove(0);
    assert_eq!(
        unknown["recipients"],
        json!([
            {"address": "busy-a@example.com", "outcome": "accepted", "code": 250, "text": "Ok"},
            {"address": "busy-b@example.com", "outcome": "unknown", "code": null, "text": null},
        ])
    );
}

/// A full mailbox is not a limit on recipients: 5xx is final, and 4xx backs off.
fn full_mailboxes_are_not_excess(store: &TestStore) {
    let server = Server::start(Faults::default());
    let to = ["one@example.com", "full@example.com", "busy@example.com"];
    add(store, &to, &[]);
    let options = ["--until-empty", "--retries=0"];
    assert_eq!(run(store, &server.url(), &options).status.code(), Some(0));
    let sent = list(store, "sent").remove(0);
    assert_eq!(sent["recipients"][1]["code"], 552);
    assert_eq!(sent["recipients"][2]["code"], 452);
    assert!(server.seen().values().all(|seen| seen.tried == 1));
}

/// A recipient that was never tried is refused where the job is sent to another one.
fn untried_recipients_are_refused_in_the_end(store: &TestStore) {
    let server = Server::start(Faults {
        recipients: Some(1),
        announces: true,
        mail: Some((1, "451 4.3.0 Later\r\n")),
        ..Faults::default()
    });
    add(store, &["one@example.com", "two@example.com"], &[]);
    let options = ["--until-empty", "--retries=0"];
    assert_eq!(run(store, &server.url(), &options).status.code(), Some(0));
    let sent = list(store, "sent").remove(0);
    let second = &sent["recipients"][1];
    assert_eq!(second["outcome"], "refused");
    assert_eq!(second["text"], sent["reason"]);
    assert!(second["text"].as_str().unwrap().contains("451"), "{second}");
}

/// A server that sheds load by 421 to MAIL has not sent the message, though the worker has stored
/// the hand-over: the job backs off.
fn busy_servers_are_retried_later(store: &TestStore) {
    let server = Server::start(Faults {
        mail: Some((0, "421 4.3.2 Too busy\r\n")),
        chunking: true,
        // The worker stores the hand-over meanwhile.
        delay: Duration::from_millis(200),
        ..Faults::default()
    });
    add(store, &TO, &[]);
    let mut options = QUICK.to_vec();
    options.push("--retries=2");
    let ended = run(store, &server.url(), &options);
    assert_eq!(ended.status.code(), Some(69), "{}", stderr(&ended));
    let failed = list(store, "failed").remove(0);
    assert_eq!(failed["attempts"], 3);
    assert_eq!(failed["recipients"][0]["outcome"], "not-tried");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("421"), "{reason}");
}

macro_rules! on_each_store {
    ($($check:ident),*) => {
        mod sqlite {
            $(#[test]
            fn $check() {
                super::$check(&crate::stores::TestStore::sqlite());
            })*
        }
        mod postgres {
            $(#[test]
            #[ignore = "needs PostgreSQL"]
            fn $check() {
                super::$check(&crate::stores::TestStore::postgres());
            })*
        }
        mod redis {
            $(#[test]
            #[ignore = "needs Redis"]
            fn $check() {
                super::$check(&crate::stores::TestStore::redis());
            })*
        }
    };
}

on_each_store!(
    keys_add_once,
    list_shows_jobs,
    refusals_fail,
    unknown_jobs_are_resolved,
    failed_jobs_are_retried,
    recipients_are_split,
    refused_groups_back_off,
    jobs_wait_for_their_time,
    purge_keeps_keys,
    large_messages_are_streamed,
    old_jobs_are_retried,
    newer_tables_are_refused,
    lost_replies_to_recipients_are_unknown,
    full_mailboxes_are_not_excess,
    untried_recipients_are_refused_in_the_end,
    busy_servers_are_retried_later,
    sigterm_returns_claimed_jobs,
    killed_workers_leave_unknown_jobs
);

/// A task that a living worker took, and whose claim was lost with the connection, is returned.
#[test]
#[ignore = "needs Redis"]
fn lost_claims_are_returned() {
    let store = TestStore::redis();
    let server = Server::start(Faults::default());
    let id = add(&store, &TO, &["--at=2099-01-01T00:00:00Z"]);
    let mut worker = start(&store, &server.url(), &[]);
    let take = "local task = redis.call('ZRANGE', 'outbox:scheduled', 0, 0)[1] \
        local worker = redis.call('ZRANGE', 'outbox:workers', 0, 0)[1] \
        if not worker then return 0 end \
        redis.call('ZREM', 'outbox:scheduled', task) \
        redis.call('SADD', 'outbox:inflight:' .. worker, task) \
        redis.call('HSET', 'outbox:job:' .. ARGV[1], 'due', 0) \
        return 1";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let take = ["EVAL", take, "0", id.as_str()];
    wait_until("the task is taken", || {
        runtime.block_on(store.redis_command::<i64>(&take)) != 0
    });
    wait_until("the job is sent", || {
        assert!(worker.try_wait().unwrap().is_none());
        status(&store)["sent"] != 0
    });
    worker.kill().unwrap();
    worker.wait().unwrap();
    assert_eq!(server.accepted(), 1);
}

/// Redis is also reached by TLS, with the system's trust anchors, which a variable can replace.
#[test]
#[ignore = "needs Redis and OpenSSL"]
fn redis_is_reached_by_tls() {
    let store = TestStore::redis();
    let path = |name: &str| store.folder().join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let port = free_port().to_string();
    for (name, value) in [
        ("tls-auth-clients", "no"),
        ("tls-key-file", &key),
        ("tls-cert-file", &certificate),
        ("tls-ca-cert-file", &certificate),
        ("tls-port", &port),
    ] {
        let () = runtime.block_on(store.redis_command(&["CONFIG", "SET", name, value]));
    }
    let status = |anchors: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_outbox"));
        command
            .args(["status", "--store"])
            .arg(format!("rediss://localhost:{port}"));
        command.env("SSL_CERT_FILE", anchors).output().unwrap()
    };
    let reached = status(&certificate);
    assert_eq!(reached.status.code(), Some(0), "{}", stderr(&reached));
    let distrusted = status("/etc/ssl/certs/ca-certificates.crt");
    assert_eq!(
        distrusted.status.code(),
        Some(74),
        "{}",
        stderr(&distrusted)
    );
}

/// A password that Redis wants is a matter of the configuration.
#[test]
#[ignore = "needs Redis"]
fn a_missing_password_of_redis_is_named() {
    let store = TestStore::redis();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let set = ["CONFIG", "SET", "requirepass", "s3cret"];
    let () = runtime.block_on(store.redis_command(&set));
    let refused = outbox(&store, "status").output().unwrap();
    assert_eq!(refused.status.code(), Some(78), "{}", stderr(&refused));
}

/// Nothing of a message that was sent stays in the file of SQLite, or beside it.
#[test]
fn sent_messages_are_overwritten() {
    let store = TestStore::sqlite();
    let server = Server::start(Faults::default());
    let text = format!(
        "Subject: Test\r\n\r\n{}",
        "confidential\r\n".repeat(100_000)
    );
    let path = store.folder().join("large.eml");
    std::fs::write(&path, text).unwrap();
    for to in ["one@example.com", "two@example.com"] {
        let added = outbox(&store, "add")
            .args(["--from=<>", "--to", to, "--message"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(added.status.success(), "{}", stderr(&added));
    }
    let is_stored = || {
        let files = std::fs::read_dir(store.folder()).unwrap();
        let mut databases = files
            .map(|file| file.unwrap().path())
            .filter(|path| path.to_str().unwrap().contains("mail.db"));
        databases.any(|path| {
            let content = std::fs::read(path).unwrap();
            content.windows(12).any(|text| text == b"confidential")
        })
    };
    assert!(is_stored());
    assert_eq!(run(&store, &server.url(), &QUICK).status.code(), Some(0));
    assert!(!is_stored());
}

/// A message that is larger than the server takes fails without a byte of it, also in pieces.
#[test]
fn messages_that_are_too_large_fail_at_once() {
    let store = TestStore::sqlite();
    let server = Server::start(Faults {
        size: Some(1_000_000),
        ..Faults::default()
    });
    let path = store.folder().join("large.eml");
    let text = String::from("Subject: Large\r\n\r\n") + &"0123456789\r\n".repeat(90_000);
    std::fs::write(&path, &text).unwrap();
    let added = outbox(&store, "add")
        .args(["--from=<>", "--to=job@example.com", "--message"])
        .arg(path)
        .output()
        .unwrap();
    assert!(added.status.success(), "{}", stderr(&added));
    assert_eq!(run(&store, &server.url(), &QUICK).status.code(), Some(69));
    let failed = list(&store, "failed");
    let reason = failed[0]["reason"].as_str().unwrap();
    assert!(reason.contains("at most 1000000"), "{reason}");
    assert_eq!(server.seen().len(), 0);
}

/// A full disk ends the commands with 74, and nothing is sent that cannot be recorded.
#[test]
#[ignore = "mounts a file system in a namespace of its own"]
fn a_full_disk_is_named() {
    let store = TestStore::sqlite();
    let server = Server::start(Faults::default());
    let script = "
        mount -t tmpfs -o size=2m tmpfs $FOLDER
        store=sqlite:$FOLDER/mail.db
        add() { $OUTBOX add --store $store --from a@example.org --to job@example.com --message -; }
        send() { $OUTBOX run --store $store --url $SERVER --until-empty; }
        printf 'Subject: Test\r\n\r\nHello.\r\n' | add || exit 1
        cat /dev/zero >$FOLDER/fill && exit 1
        head -c 100000 /dev/zero | tr '\\0' x | add; echo add $?
        send; echo full $?
        rm $FOLDER/fill
        send; echo empty $?
        rm -r $FOLDER/*
        cat /dev/zero >$FOLDER/fill && exit 1
        printf 'Subject: Test\r\n\r\nHello.\r\n' | add; echo new $?
    ";
    let ended = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-uc", script])
        .env("FOLDER", store.folder())
        .env("OUTBOX", env!("CARGO_BIN_EXE_outbox"))
        .env("SERVER", server.url())
        .output()
        .unwrap();
    let codes = stdout(&ended);
    let codes: Vec<&str> = codes.lines().skip(1).collect();
    assert_eq!(
        codes,
        ["add 74", "full 74", "empty 0", "new 74"],
        "{}",
        stderr(&ended)
    );
    let said = stderr(&ended);
    let reports = said.lines().filter(|line| line.starts_with("outbox: "));
    for report in reports {
        assert!(
            report.contains("disk is full") || report.contains("No space left"),
            "{report}"
        );
    }
    assert_eq!(server.accepted(), 1);
}

/// A file that is not an outbox's, or is damaged, is named with what to do.
#[test]
fn unusable_files_are_explained() {
    let store = TestStore::sqlite();
    let path = store.folder().join("mail.db");
    let refused = |advice: &str| {
        let refused = outbox(&store, "status").output().unwrap();
        assert_eq!(refused.status.code(), Some(74), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(advice), "{}", stderr(&refused));
    };
    std::fs::create_dir(&path).unwrap();
    refused("give a file in it");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "Not a database, but a file of another program.").unwrap();
    refused("give the file of an outbox");
    std::fs::remove_file(&path).unwrap();
    add(&store, &TO, &[]);
    let mut content = std::fs::read(&path).unwrap();
    content[100..].fill(0xff);
    std::fs::write(&path, content).unwrap();
    // It is there if the connection was not closed before the process ended.
    let _ = std::fs::remove_file(store.folder().join("mail.db-wal"));
    refused("restore it from a backup");
}

/// A file that may not be opened or created is named with what to do, and so is a disk that has no
/// room for another file.
#[test]
#[ignore = "mounts a file system in a namespace of its own"]
fn files_that_cannot_be_opened_are_explained() {
    let store = TestStore::sqlite();
    // In a namespace that maps no user, root has the rights of an owner alone.
    let script = "
        store=sqlite:$FOLDER/mail.db
        add() {
            printf 'Subject: Test\r\n\r\nHello.\r\n' |
                $OUTBOX add --store $store --from a@example.org --to job@example.com --message -
        }
        chmod 500 $FOLDER
        unshare --user $OUTBOX status --store $store; echo forbidden $?
        mount -t tmpfs -o size=2m,nr_inodes=5 tmpfs $FOLDER
        add || exit 1
        rm -f $FOLDER/mail.db-*
        touch $FOLDER/fill-1 $FOLDER/fill-2
        add; echo inodes $?
        mount -o remount,ro $FOLDER
        $OUTBOX status --store $store; echo read-only $?
    ";
    let ended = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-uc", script])
        .env("FOLDER", store.folder())
        .env("OUTBOX", env!("CARGO_BIN_EXE_outbox"))
        .output()
        .unwrap();
    let codes = stdout(&ended);
    let codes: Vec<&str> = codes.lines().filter(|line| line.contains(' ')).collect();
    let expected = ["forbidden 74", "inodes 74", "read-only 74"];
    assert_eq!(codes, expected, "{}", stderr(&ended));
    let said = stderr(&ended);
    let advice = [
        "run this as the user that owns it",
        "room for another file",
        "a disk that can be written",
    ];
    for (report, advice) in said.lines().zip(advice) {
        assert!(report.contains(advice), "{report}");
    }
}

/// A Redis server that refuses to write is named with what to do, and a wrong password with where
/// to mend it.
#[test]
#[ignore = "needs Redis"]
fn refusals_of_redis_are_explained() {
    let store = TestStore::redis();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let path = message(&store);
    let set = |name: &str, value: &str| {
        let () = runtime.block_on(store.redis_command(&["CONFIG", "SET", name, value]));
    };
    let refused = |code: i32, advice: &str| {
        let refused = outbox(&store, "add")
            .args(["--from=a@example.org", "--to=job@example.com", "--message"])
            .arg(&path)
            .output()
            .unwrap();
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(code), "{said}");
        assert!(
            said.contains(advice) && !said.contains("user_script"),
            "{said}"
        );
    };
    set("maxmemory", "1mb");
    refused(74, "raise its maxmemory");
    set("maxmemory", "0");

    // A snapshot cannot replace a folder.
    std::fs::create_dir(store.folder().join("dump.rdb")).unwrap();
    set("save", "3600 1");
    let () = runtime.block_on(store.redis_command(&["BGSAVE"]));
    wait_until("the snapshot fails", || {
        let info = ["INFO", "persistence"];
        let info: String = runtime.block_on(store.redis_command(&info));
        info.contains("rdb_last_bgsave_status:err")
    });
    refused(74, "its disk may be full");
    set("save", "");

    set("requirepass", "s3cret");
    refused(78, "check the password in the URL");
}

/// A worker waits for the replicas that Redis has to have.
#[test]
#[ignore = "needs Redis"]
fn missing_replicas_are_waited_for() {
    let store = TestStore::redis();
    let server = Server::start(Faults::default());
    add(&store, &TO, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let need = |number: &str| {
        let set = ["CONFIG", "SET", "min-replicas-to-write", number];
        let () = runtime.block_on(store.redis_command(&set));
    };
    need("1");
    let mut worker = start(&store, &server.url(), &["--until-empty"]);
    let mut reports = BufReader::new(worker.stderr.take().unwrap()).lines();
    let report = reports.next().unwrap().unwrap();
    assert!(report.contains("NOREPLICAS"), "{report}");
    need("0");
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    assert_eq!(server.accepted(), 1);
}

/// A user of PostgreSQL that may not make the tables is told what it lacks.
#[test]
#[ignore = "needs PostgreSQL"]
fn missing_rights_are_explained() {
    let store = TestStore::postgres();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.execute("CREATE ROLE reader LOGIN"));
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_outbox"))
        .args(["status", "--store"])
        .arg(store.url().replace("outbox@", "reader@"))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(74), "{}", stderr(&refused));
    let said = stderr(&refused);
    assert!(
        said.contains("its tables cannot be made: permission denied"),
        "{said}"
    );
    assert!(said.contains("grant this user its rights"), "{said}");
}

/// Processes that add at the same time create the file together, for this user alone.
#[test]
fn several_processes_create_the_file() {
    let store = TestStore::sqlite();
    message(&store);
    thread::scope(|scope| {
        for number in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let added = outbox(store, "add")
                    .args(["--from=a@example.org", "--to=job@example.com", "--message"])
                    .arg(store.folder().join("message.eml"))
                    .arg(format!("--key={number}"))
                    .output()
                    .unwrap();
                assert!(added.status.success(), "{}", stderr(&added));
            });
        }
    });
    assert_eq!(status(&store)["waiting"], 8);
    for entry in std::fs::read_dir(store.folder()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("mail.db") {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{entry:?}");
        }
    }
}

/// Processes that wait for their message do not keep others from the tables.
#[test]
#[ignore = "needs PostgreSQL"]
fn several_processes_create_the_tables() {
    let store = TestStore::postgres();
    let start = |_| {
        let mut command = outbox(&store, "add");
        command.args([
            "--from=a@example.org",
            "--to=job@example.com",
            "--message=-",
        ]);
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let processes: Vec<Child> = (0..10).map(start).collect();
    // The last ones wait for those before them.
    for mut process in processes.into_iter().rev() {
        let mut input = process.stdin.take().unwrap();
        input.write_all(b"Subject: Test\r\n\r\nHello.\r\n").unwrap();
        drop(input);
        let added = process.wait_with_output().unwrap();
        assert!(added.status.success(), "{}", stderr(&added));
    }
    assert_eq!(status(&store)["waiting"], 10);
}

/// Bad requests, unreadable input and stores that cannot be used have their exit codes, and no
/// output repeats a password.
#[test]
fn failures_have_exit_codes() {
    let store = TestStore::sqlite();
    let path = message(&store);
    let path = path.to_str().unwrap();
    let cases: [(i32, &[&str]); 11] = [
        (64, &["frobnicate", "redis://:s3cret@localhost"]),
        (64, &["status", "redis://:s3cret@localhost"]),
        (
            64,
            &["add", "--from=a@example.org", "--to=bob", "--message", path],
        ),
        (64, &["add", "--from=a@example.org", "--message", path]),
        (
            64,
            &[
                "add",
                "--from=a@b.org",
                "--to=b@b.org",
                "--at=soon",
                "--message",
                path,
            ],
        ),
        (64, &["list", "--state=lost"]),
        (64, &["resolve", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "--as=maybe"]),
        (64, &["purge", "--older-than=forever"]),
        (
            66,
            &[
                "add",
                "--from=a@b.org",
                "--to=b@b.org",
                "--message=/nonexistent",
            ],
        ),
        (64, &["run", "--url=smtp://u:s3cret@host?colour=blue"]),
        (
            78,
            &[
                "run",
                "--until-empty",
                "--url=smtp://host",
                "--trust=/nonexistent",
            ],
        ),
    ];
    for (code, arguments) in cases {
        let output = outbox(&store, arguments[0])
            .args(&arguments[1..])
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?} {}",
            stderr(&output)
        );
        assert!(!stderr(&output).contains("s3cret"), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    let stores = [
        (78, "mysql://:s3cret@localhost"),
        (78, "sqlite::memory:"),
        (78, "postgres://:s3cret@localhost:bad/port"),
        (74, "redis://:s3cret@127.0.0.1:1"),
        (74, "postgres://u:s3cret@127.0.0.1:1/outbox"),
        (74, "sqlite:/proc/mail.db"),
    ];
    for (code, url) in stores {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_outbox"))
            .args(["status", "--store-env=OUTBOX_TEST_URL"])
            .env("OUTBOX_TEST_URL", url)
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{url}: {}",
            stderr(&output)
        );
        assert!(!stderr(&output).contains("s3cret"), "{}", stderr(&output));
    }
}

/// The worker pauses where there is no server, reports it with its cause, and uses up no retry.
#[test]
fn an_absent_server_is_waited_for() {
    let store = TestStore::sqlite();
    let port = free_port();
    add(&store, &TO, &[]);
    let url = format!("smtp://127.0.0.1:{port}?tls=none");
    let mut worker = start(&store, &url, &["--until-empty", "--retries=0"]);
    let mut reports = BufReader::new(worker.stderr.take().unwrap()).lines();
    let report = reports.next().unwrap().unwrap();
    assert!(report.contains("pausing for 1 s"), "{report}");
    let hint = reports.next().unwrap().unwrap();
    assert!(hint.contains("hint:"), "{hint}");
    let report = reports.next().unwrap().unwrap();
    assert!(report.contains("pausing for 2 s"), "{report}");
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let server = Server::serve_on(listener, Faults::default());
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    assert_eq!(server.accepted(), 1);
    assert_eq!(list(&store, "sent")[0]["attempts"], 1);
}

/// A job that waits for an absent server fails after `--max-age`, with the last reason.
#[test]
fn jobs_do_not_wait_for_ever() {
    let store = TestStore::sqlite();
    add(&store, &TO, &[]);
    let options = ["--until-empty", "--max-age=2"];
    let ended = run(&store, "smtp://127.0.0.1:1?tls=none", &options);
    assert_eq!(ended.status.code(), Some(69), "{}", stderr(&ended));
    let failed = list(&store, "failed");
    let reason = failed[0]["reason"].as_str().unwrap();
    assert!(reason.contains("127.0.0.1"), "{reason}");
}

/// A login that stays refused ends `--until-empty`, and the password appears nowhere.
#[test]
fn a_refused_login_ends_the_run() {
    let store = TestStore::sqlite();
    let server = Server::start(Faults {
        login: Some("535 5.7.8 Authentication failed\r\n"),
        ..Faults::default()
    });
    add(&store, &TO, &[]);
    let url = server.url().replace("smtp://", "smtp://alice@") + "&auth-in-clear=yes";
    let mut worker = outbox(&store, "run")
        .args(["--url", &url, "--until-empty", "--password-file=-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    worker.stdin.take().unwrap().write_all(b"s3cret\n").unwrap();
    let ended = worker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(77), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("535"), "{}", stderr(&ended));
    assert_eq!(list(&store, "waiting")[0]["attempts"], 0);
    let mut stored = stderr(&ended).into_bytes();
    for name in ["mail.db", "mail.db-wal"] {
        stored.extend(std::fs::read(store.folder().join(name)).unwrap_or_default());
    }
    let is_password = |part: &[u8]| part == b"s3cret";
    assert!(!stored.windows(6).any(is_password));
}

/// A server that cannot check logins for the moment is waited for, as one that is absent.
#[test]
fn a_deferred_login_is_waited_for() {
    let store = TestStore::sqlite();
    let server = Server::start(Faults {
        login: Some("454 4.7.0 Temporary authentication failure\r\n"),
        ..Faults::default()
    });
    add(&store, &TO, &[]);
    let url = server.url().replace("smtp://", "smtp://alice:pw@") + "&auth-in-clear=yes";
    let mut worker = start(&store, &url, &["--until-empty"]);
    let reports = BufReader::new(worker.stderr.take().unwrap()).lines();
    let pauses = reports
        .map(Result::unwrap)
        .filter(|line| line.contains("454"));
    // Refused for good, it would end after the third.
    assert_eq!(pauses.take(4).count(), 4);
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// SIGTERM ends a worker whose server is silent within the time limits: before the hand-over the
/// job waits again, after it, it is unknown.
#[test]
fn sigterm_does_not_wait_for_a_silent_server() {
    let store = TestStore::sqlite();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    add(&store, &["one@example.com"], &[]);
    let url = format!("smtp://127.0.0.1:{port}?tls=none");
    let worker = start(&store, &url, &["--timeout=1"]);
    let silent = listener.accept().unwrap();
    terminate(&worker);
    let begun = Instant::now();
    let ended = worker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert!(begun.elapsed() < Duration::from_secs(10));
    drop(silent);
    let counts = json!({"waiting": 1, "running": 0, "sent": 0, "failed": 0, "unknown": 0});
    assert_eq!(status(&store), counts);

    let server = Server::start(Faults {
        delay: Duration::from_secs(60),
        ..Faults::default()
    });
    let worker = start(&store, &server.url(), &["--timeout=1"]);
    wait_until("the job is begun", || server.seen().contains_key("one"));
    terminate(&worker);
    let begun = Instant::now();
    let ended = worker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert!(begun.elapsed() < Duration::from_secs(10));
    let counts = json!({"waiting": 0, "running": 0, "sent": 0, "failed": 0, "unknown": 1});
    assert_eq!(status(&store), counts);
}

/// Values out of range are refused, not replaced.
#[test]
fn values_out_of_range_are_refused() {
    let store = TestStore::sqlite();
    for option in ["--connections=0", "--lease=0.2", "--retries=65536"] {
        let refused = run(&store, "smtp://127.0.0.1:1?tls=none", &[option]);
        assert_eq!(refused.status.code(), Some(64), "{option}");
    }
}

/// A store that becomes unusable while the worker pauses ends it.
#[test]
fn an_unusable_store_ends_a_pause() {
    let store = TestStore::sqlite();
    add(&store, &TO, &[]);
    let mut worker = start(&store, "smtp://127.0.0.1:1?tls=none", &["--lease=1"]);
    let mut reports = BufReader::new(worker.stderr.take().unwrap()).lines();
    let report = reports.next().unwrap().unwrap();
    assert!(report.contains("pausing"), "{report}");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.execute("ALTER TABLE outbox_jobs RENAME TO moved"));
    wait_until("the worker ends", || worker.try_wait().unwrap().is_some());
    assert_eq!(worker.wait().unwrap().code(), Some(74));
    assert!(reports.any(|line| line.unwrap().contains("no such table")));
}

/// A server that ends the session while the hand-over is on its way to a slow store has not sent
/// the message: the outcome is stored after the hand-over, which is not that of another worker.
#[test]
fn a_slow_handover_is_taken_back() {
    let store = TestStore::sqlite();
    add(&store, &TO, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("smtp://127.0.0.1:{port}?tls=none");
    let worker = start(&store, &url, &["--until-empty", "--retries=0"]);
    let (stream, _) = listener.accept().unwrap();
    // The job is claimed; from here on, no other process can write.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let locked = runtime.block_on(store.lock());
    let mut output = &stream;
    let mut commands = BufReader::new(&stream).lines().map_while(Result::ok);
    output.write_all(b"220 mail.example.com ESMTP\r\n").unwrap();
    for reply in [
        "250 mail.example.com",
        "250 2.1.0 Ok",
        "250 2.1.5 Ok",
        "354 Go ahead",
    ] {
        commands.next().unwrap();
        output.write_all(reply.as_bytes()).unwrap();
        output.write_all(b"\r\n").unwrap();
    }
    // The message without its end, which waits for the hand-over.
    assert!(commands.any(|line| line == "Hello."));
    output.write_all(b"421 4.3.2 Too busy\r\n").unwrap();
    // The worker has seen it, and ends the connection.
    assert_eq!(commands.next(), None);
    drop(locked);
    let ended = worker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(69), "{}", stderr(&ended));
    let failed = list(&store, "failed").remove(0);
    assert_eq!(failed["attempts"], 1, "{failed}");
    let reason = failed["reason"].as_str().unwrap();
    assert!(reason.contains("421"), "{reason}");
}

/// SIGTERM lets the running job end, and begins no other.
#[test]
fn sigterm_lets_jobs_end() {
    let store = TestStore::sqlite();
    let server = Server::start(Faults {
        delay: Duration::from_secs(1),
        ..Faults::default()
    });
    add(&store, &["one@example.com"], &[]);
    add(&store, &["two@example.com"], &[]);
    let worker = start(&store, &server.url(), &["--connections=1"]);
    wait_until("the job runs", || status(&store)["running"] != 0);
    terminate(&worker);
    let ended = worker.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let counts = json!({"waiting": 1, "running": 0, "sent": 1, "failed": 0, "unknown": 0});
    assert_eq!(status(&store), counts);
}
