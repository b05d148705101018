//! `--listen`, by requests of our own and by a real browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::program::{add, list, outbox, run, start};
use crate::server::{Faults, Server};
use crate::stores::TestStore;

/// A text that would do harm if it were not escaped.
const SCRIPT: &str = "\"><script>document.title='owned'</script>";

/// A worker that listens, with an unknown and a failed job.
struct Worker {
    store: TestStore,
    process: Child,
    /// Where it listens, as in the header Host.
    host: String,
}

impl Worker {
    fn start() -> Self {
        let store = TestStore::sqlite();
        let server = Server::start(Faults {
            lost_replies: 1000,
            ..Faults::default()
        });
        add(&store, &["job@example.com"], &["--key", SCRIPT]);
        add(&store, &["bad@example.com"], &[]);
        let ended = run(&store, &server.url(), &["--until-empty"]);
        assert_eq!(ended.status.code(), Some(79));
        let mut process = start(&store, &server.url(), &["--listen=127.0.0.1:0"]);
        let mut report = String::new();
        let mut reports = BufReader::new(process.stderr.take().unwrap());
        reports.read_line(&mut report).unwrap();
        let url = report.split_whitespace().last().unwrap();
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        Worker {
            host: host.to_owned(),
            store,
            process,
        }
    }

    /// Makes a request with these headers, and returns the response.
    fn request(&self, line: &str, headers: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    fn get(&self, path: &str) -> String {
        let host = format!("Host: {}\r\n", self.host);
        self.request(&format!("GET {path}"), &host, "")
    }

    fn count(&self, state: &str) -> usize {
        list(&self.store, state).len()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn health_and_metrics_are_served() {
    let worker = Worker::start();
    assert!(worker.get("/health").starts_with("HTTP/1.1 200 "));
    let metrics = worker.get("/metrics");
    assert!(
        metrics.contains("\noutbox_jobs{state=\"unknown\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\noutbox_jobs{state=\"failed\"} 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\noutbox_paused 0\n"), "{metrics}");
}

#[test]
fn other_sites_are_refused() {
    let worker = Worker::start();
    let host = &worker.host;
    let port = host.rsplit(':').next().unwrap();
    for headers in [
        format!("Host: evil.example:{port}\r\n"),
        format!("Host: {port}\r\n"),
        "Host: 127.0.0.1:1\r\n".to_owned(),
        format!("Host: 192.0.2.1:{port}\r\n"),
        format!("Host: [::1]:{port}\r\n"),
        "Host: localhost\r\n".to_owned(),
        format!("Host: {host}\r\nHost: evil.example:{port}\r\n"),
        format!("Host: {host}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: {host}\r\nOrigin: null\r\n"),
    ] {
        let response = worker.request("GET /", &headers, "");
        assert!(
            response.starts_with("HTTP/1.1 403 "),
            "{headers} {response}"
        );
    }
    let local = format!("Host: localhost:{port}\r\n");
    assert!(
        worker
            .request("GET /", &local, "")
            .starts_with("HTTP/1.1 200 ")
    );
}

/// A place that is not an id does not reach the store, where it would fail other requests.
#[test]
fn places_are_ids() {
    let worker = Worker::start();
    for place in ["%00", "a", "01M8D45D2T3MNDFFXAWFQFV8J%27"] {
        for list in ["unknown", "failed"] {
            let response = worker.get(&format!("/?{list}={place}"));
            assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
        }
    }
    let response = worker.get("/?unknown=01M8D45D2T3MNDFFXAWFQFV8JX&failed=");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[test]
fn jobs_change_by_the_token_alone() {
    let worker = Worker::start();
    let id = list(&worker.store, "unknown")[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let page = worker.get("/");
    let token = page.split("name=token value=\"").nth(1).unwrap();
    let token = token.split('"').next().unwrap();
    let headers = format!("Host: {0}\r\nOrigin: http://{0}\r\n", worker.host);
    let resolve = |token: &str| {
        let body = format!("token={token}&id={id}&action=sent");
        worker.request("POST /resolve", &headers, &body)
    };
    for wrong in ["", &token[1..], &token.replace(&token[..1], "x")] {
        assert!(resolve(wrong).starts_with("HTTP/1.1 403 "));
    }
    assert_eq!(worker.count("unknown"), 1);
    assert!(resolve(token).starts_with("HTTP/1.1 303 "));
    assert_eq!((worker.count("unknown"), worker.count("sent")), (0, 1));
    // It is not unknown any more.
    assert!(resolve(token).starts_with("HTTP/1.1 409 "));
}

#[test]
fn an_address_in_use_is_an_error() {
    let worker = Worker::start();
    let ended = outbox(&worker.store, "run")
        .args([
            "--url=smtp://127.0.0.1:1?tls=none",
            "--listen",
            &worker.host,
        ])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(69));
}

/// A browser that is driven by its DevTools protocol, over pipes.
struct Browser {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Value,
    calls: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::TempDir::new().unwrap();
        // Chromium reads commands from file descriptor 3, and writes to 4.
        let script = "exec chromium --headless --no-sandbox --disable-gpu \
            --remote-debugging-pipe --user-data-dir=\"$0\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut process = Command::new("sh")
            .args(["-c", script])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Browser {
            input: process.stdin.take().unwrap(),
            output: BufReader::new(process.stdout.take().unwrap()),
            process,
            session: Value::Null,
            calls: 0,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].take();
        browser.call("Page.enable", json!({}));
        browser.call("Page.navigate", json!({ "url": url }));
        browser.wait_for("Page.loadEventFired");
        browser
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.output.read_until(0, &mut message).unwrap();
        assert_eq!(message.pop(), Some(0), "the browser has ended");
        serde_json::from_slice(&message).unwrap()
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": parameters});
        if !self.session.is_null() {
            call["sessionId"] = self.session.clone();
        }
        self.input.write_all(call.to_string().as_bytes()).unwrap();
        self.input.write_all(&[0]).unwrap();
        loop {
            let mut message = self.read();
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
        }
    }

    fn wait_for(&mut self, event: &str) {
        while self.read()["method"] != event {}
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let mut result = self.call("Runtime.evaluate", json!({ "expression": expression }));
        result["result"]["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The page shows the jobs as text, runs no script, and its buttons resolve them.
#[test]
#[ignore = "needs Chromium"]
fn a_browser_resolves_jobs() {
    let worker = Worker::start();
    let mut browser = Browser::open(&format!("http://{}/", worker.host));
    assert_eq!(browser.evaluate("document.title"), "Outbox");
    assert_eq!(browser.evaluate("document.scripts.length"), 0);
    let text = browser.evaluate("document.body.innerText");
    assert!(text.as_str().unwrap().contains(SCRIPT), "{text}");
    let injected = "let s = document.createElement('script'); \
        s.text = 'document.title = \"owned\"'; document.body.append(s); document.title";
    assert_eq!(browser.evaluate(injected), "Outbox");

    browser.evaluate("document.querySelector('button[value=sent]').click()");
    browser.wait_for("Page.loadEventFired");
    assert_eq!(worker.count("sent"), 1);
    assert_eq!(
        browser.evaluate("document.querySelectorAll('button').length"),
        1
    );
    browser.evaluate("document.querySelector('button[value=retry]').click()");
    browser.wait_for("Page.loadEventFired");
    assert_eq!(browser.evaluate("location.pathname"), "/");
}
