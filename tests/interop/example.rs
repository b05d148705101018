//! The `send` example as a program, against both servers.
//!
//! It is run as it was built last: `cargo build --example send` comes before
//! `cargo test --test interop`.

use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::process::Command;

use crate::servers::{ALICE, Delivered, NO_LOGIN, both, someone};

/// Next to the folder of this test's own program.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test
        .parent()
        .unwrap()
        .with_file_name("examples")
        .join("send");
    assert!(
        path.exists(),
        "{path:?} is missing: run `cargo build --example send`"
    );
    path
}

struct Run {
    code: i32,
    json: Value,
    stderr: String,
}

impl Run {
    #[track_caller]
    fn exits_with(self, code: i32) -> Value {
        assert_eq!(self.code, code, "{}\n{}", self.json, self.stderr);
        self.json
    }
}

async fn send(url: &str, arguments: &[&str], stdin: impl Into<Stdio>) -> Run {
    let output = Command::new(program())
        .args(["--json", "--from", "alice@envoi.test", "--url", url])
        .args(arguments)
        .stdin(stdin)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    // A password of theirs, in any form.
    for secret in ["dummy", "123+/="] {
        assert!(!stderr.contains(secret), "{stderr}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains(secret));
    }
    Run {
        code: output.status.code().unwrap(),
        json: serde_json::from_slice(&output.stdout).unwrap(),
        stderr,
    }
}

/// The one attachment of a message, decoded.
fn attachment(delivered: &Delivered) -> Vec<u8> {
    let part = delivered
        .text()
        .split("Content-Disposition: attachment")
        .nth(1)
        .unwrap();
    let encoded = part
        .split_once("\r\n\r\n")
        .unwrap()
        .1
        .split("\r\n--")
        .next()
        .unwrap();
    STANDARD.decode(encoded.replace("\r\n", "")).unwrap()
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn send_delivers_on_ports_25_587_and_465() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.bin");
    let content: Vec<u8> = (0..1_000_000u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&path, &content).unwrap();
    for server in both() {
        for url in server.settings() {
            let to = [someone("send"), someone("send-cc"), someone("send-bcc")];
            let path = path.to_str().unwrap();
            let arguments = [
                "--to",
                to[0].as_str(),
                "--cc",
                to[1].as_str(),
                "--bcc",
                to[2].as_str(),
            ];
            let message = [
                "--subject",
                "Grüße",
                "--body",
                "one\n.\ntwo",
                "--attach",
                path,
            ];
            let json = send(&url, &[&arguments[..], &message].concat(), Stdio::null())
                .await
                .exits_with(0);
            assert_eq!(json["outcome"], "sent", "{json}");
            assert_eq!(json["error"], Value::Null);
            assert_eq!(json["reply"]["code"], 250);
            assert_eq!(json["recipients"].as_array().unwrap().len(), 3);
            for (recipient, to) in json["recipients"].as_array().unwrap().iter().zip(&to) {
                assert_eq!(recipient["address"], to.as_str());
                assert_eq!(
                    (&recipient["outcome"], &recipient["accepted"]),
                    (&"accepted".into(), &true.into())
                );
            }
            if url.contains("tls=none") {
                assert_eq!((&json["tls"], &json["auth"]), (&Value::Null, &Value::Null));
            } else {
                assert_eq!(json["auth"], "PLAIN");
                assert_eq!(json["tls"]["version"], "TLSv1.3");
                assert_eq!(json["tls"]["verified"], true);
                assert_eq!(json["tls"]["issuer"], "CN=envoi test CA,O=envoi tests");
            }
            for to in &to {
                let delivered = server.delivered(to).await;
                let text = delivered.text();
                assert!(
                    text.contains("\r\n\r\none\r\n.\r\ntwo\r\n"),
                    "{}",
                    &text[..1000]
                );
                assert!(
                    text.contains("Subject: =?utf-8?") && !text.contains("send-bcc"),
                    "{}",
                    &text[..1000]
                );
                assert_eq!(json["bytes"], delivered.message.len());
                assert!(
                    attachment(&delivered) == content,
                    "the attachment is another one"
                );
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn send_reads_everything_from_files_and_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ready = "From: alice@envoi.test\nBcc: hidden@envoi.test\nSubject: ready\n\n.\n..\nend";
    let (message, password) = (
        file("message.eml", ready),
        file("password", "Grüße@1%20?#&\n"),
    );
    for server in both() {
        let url = format!("smtps://bob%40envoi.test@localhost:{}", server.port_465);
        let trust = server.ca.to_str().unwrap();
        for (source, stdin) in [
            (message.as_str(), Stdio::null()),
            ("-", Stdio::from(std::fs::File::open(&message).unwrap())),
        ] {
            let to = someone("send-ready");
            let arguments = [
                "--trust",
                trust,
                "--password-file",
                &password,
                "--auth",
                "LOGIN",
                "--helo",
                "c.envoi.test",
            ];
            let arguments = [&arguments[..], &["--to", to.as_str(), "--message", source]].concat();
            let json = send(&url, &arguments, stdin).await.exits_with(0);
            assert_eq!(json["auth"], "LOGIN");
            let delivered = server.delivered(&to).await;
            assert_eq!(
                delivered.text(),
                "From: alice@envoi.test\r\nSubject: ready\r\n\r\n.\r\n..\r\nend\r\n"
            );
            assert!(
                delivered.trace.contains("c.envoi.test"),
                "{}",
                delivered.trace
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn send_reports_what_the_servers_refuse() {
    for server in both() {
        let hello = ["--body", "Hello"];
        let to = someone("send-partial");
        let arguments = [
            &hello[..],
            &["--to", to.as_str(), "--to", "nobody@envoi.test"],
        ]
        .concat();
        let json = send(&server.starttls(ALICE), &arguments, Stdio::null())
            .await
            .exits_with(69);
        assert_eq!(json["outcome"], "partial");
        assert_eq!(json["recipients"][1]["outcome"], "refused");
        assert_eq!(json["recipients"][1]["code"], 550);
        assert_eq!(json["recipients"][1]["enhanced"], "5.1.1");
        let _ = server.delivered(&to).await;

        let ca = server.ca.display();
        let (p25, p587, p465) = (server.port_25, server.port_587, server.port_465);
        for (url, to, code, kind) in [
            (server.plain(), "later@envoi.test", 75, "refused"),
            (server.plain(), "other@example.org", 69, "refused"),
            (server.starttls(NO_LOGIN), "x@envoi.test", 69, "refused"),
            (
                server.starttls("alice%40envoi.test:wrong@"),
                "x@envoi.test",
                77,
                "auth",
            ),
            (
                format!("smtp://{ALICE}127.0.0.1:{p25}?tls=none"),
                "x@envoi.test",
                76,
                "insecure",
            ),
            (
                format!("smtp://127.0.0.1:{p25}?trust={ca}"),
                "x@envoi.test",
                76,
                "tls",
            ),
            (
                format!("smtps://localhost:{p587}?trust={ca}"),
                "x@envoi.test",
                76,
                "tls",
            ),
            (
                format!("smtp://localhost:{p465}?trust={ca}&timeout=1"),
                "x@envoi.test",
                75,
                "timeout",
            ),
        ] {
            let arguments = [&hello[..], &["--to", to]].concat();
            let json = send(&url, &arguments, Stdio::null()).await.exits_with(code);
            assert_eq!(json["outcome"], "failed", "{json}");
            assert_eq!(json["error"]["kind"], kind, "{json}");
            assert!(json["error"]["hint"].is_string(), "{json}");
        }
    }
}
