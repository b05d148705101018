//! `send --mx` as a program.

use envoi::testing::{Fault, Server, Step};
use serde_json::{Value, json};
use support::program::{self, Run};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpListener;

use crate::lab::lab;

async fn send(recipients: &[&str], more: &[&str]) -> Run {
    let resolver = lab().resolver().to_string();
    let anchors = lab().anchor_file();
    let mut arguments = vec!["--mx", "--resolver", &resolver, "--json"];
    if more.iter().all(|option| !option.starts_with("--timeout")) {
        arguments.push("--timeout=10");
    }
    arguments.extend(["--dnssec-anchor", anchors.to_str().unwrap()]);
    arguments.extend(["--from", "me@example.org", "--subject", "a", "--body", "b"]);
    for recipient in recipients {
        arguments.extend(["--to", recipient]);
    }
    arguments.extend(more);
    program::run("send", &arguments, b"", &[]).await
}

async fn server(last: u8, fault: Option<Fault>) -> Server {
    let builder = Server::builder()
        .address(lab().address(last))
        .port(25)
        .plaintext();
    let builder = match fault {
        Some(fault) => builder.fault(fault),
        None => builder,
    };
    builder.start().await.unwrap()
}

fn via(last: u8, host: &str) -> Value {
    json!({
        "host": host, "address": lab().address(last), "policy": "none",
        "tls": null, "verified": false, "dnssec": false,
    })
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_says_how_the_message_went_to_each_recipient() {
    let server = server(52, None).await;
    let run = send(&["a@sent.delivery.example"], &[]).await;
    run.exits_with(0);
    let json = run.json();
    assert_eq!(json["outcome"], "sent");
    assert_eq!(json["server"], "sent1.delivery.example");
    assert_eq!(json["reply"]["code"], 250);
    assert_eq!(
        json["recipients"][0]["via"],
        via(52, "sent1.delivery.example")
    );
    // Of several domains, the parts that are of one server are null.
    let recipients = ["a@sent.delivery.example", "b@null.delivery.example"];
    let run = send(&recipients, &[]).await;
    run.exits_with(69);
    let json = run.json();
    assert_eq!(json["outcome"], "partial");
    for part in ["server", "reply", "tls"] {
        assert_eq!(json[part], Value::Null, "{json}");
    }
    assert_eq!(json["recipients"][0]["outcome"], "accepted");
    assert_eq!(json["recipients"][1]["outcome"], "not-tried");
    assert_eq!(json["recipients"][1]["via"], Value::Null);
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains("b@null.delivery.example") && message.contains("null MX"));
    assert_eq!(server.messages().len(), 2);
    // QUIT follows each. After a refusal the program does not wait for the answer, so the server
    // may not have read it yet.
    while server.connections().iter().any(|session| session.is_open) {
        tokio::task::yield_now().await;
    }
    for session in server.connections() {
        assert_eq!(session.commands().last(), Some("QUIT"));
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_exits_by_what_the_dns_and_the_servers_say() {
    let _server = server(53, Some(Fault::reply(Step::Greeting, "garbage").times(1))).await;
    for (recipients, code, outcome) in [
        // A violation of the protocol is followed by the next server, of which there is none.
        (&["a@also.delivery.example"][..], 69, "failed"),
        (&["a@missing.delivery.example"], 69, "failed"),
        (&["a@expired.example"], 75, "failed"),
        (
            &["a@expired.example", "a@null.delivery.example"],
            69,
            "failed",
        ),
        (
            &["a@expired.example", "a@also.delivery.example"],
            75,
            "partial",
        ),
        (&["a@[127.0.0.1.5]"], 64, "failed"),
    ] {
        let run = send(recipients, &[]).await;
        run.exits_with(code);
        let json = run.json();
        assert_eq!(json["outcome"], outcome, "{json}");
        assert_eq!(json["error"]["transient"], code == 75, "{json}");
        assert!(
            json["error"]["hint"]
                .as_str()
                .is_some_and(|hint| !hint.contains("::")),
            "{json}"
        );
    }
}

/// There is no URL to change, and a message that was not accepted did not go by a server.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_speaks_of_its_options_and_of_the_last_server() {
    let _silent = server(69, Some(Fault::hang(Step::Mail))).await;
    let literal = format!("z@[{}]", lab().address(69));
    let run = send(&[&literal], &["--timeout=0.3"]).await;
    run.exits_with(75).says("increase --timeout.");
    let resolver = lab().resolver().to_string();
    let anchors = lab().anchor_file();
    let anchors = anchors.to_str().unwrap();
    let options = [
        "--mx",
        "--resolver",
        &resolver,
        "--dnssec-anchor",
        anchors,
        "--timeout",
        "0.3",
    ];
    let message = ["--from", "me@example.org", "--to", &literal];
    let run = program::run("send", &[&options[..], &message].concat(), b"", &[]).await;
    let place = format!("  at [{}], policy none (", lab().address(69));
    assert!(run.stdout.contains(&place), "{}", run.stdout);
}

/// The failure that decides the exit code gives the rest, and each domain has its lines.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_says_what_became_of_each_domain_in_any_order() {
    let _refuses = server(66, Some(Fault::reply(Step::Rcpt, "550 5.1.1 No such user"))).await;
    let _loses = server(67, Some(Fault::close(Step::Message))).await;
    let _accepts = server(68, None).await;
    let literals = [66, 67, 68].map(|last| format!("z@[{}]", lab().address(last)));
    let [refused, unknown, accepted] = [0, 1, 2].map(|place| literals[place].as_str());
    let (bogus, null) = ("b@expired.example", "c@null.delivery.example");
    // Those that failed, in their order.
    for (failed, accepted, code, kind, phase) in [
        (vec![refused, bogus], None, 69, "refused", "rcpt"),
        (vec![refused, bogus], Some(accepted), 69, "refused", "rcpt"),
        (vec![null, bogus], Some(accepted), 69, "connect", "connect"),
        (
            vec![unknown, null, bogus],
            None,
            79,
            "closed",
            "end-of-data",
        ),
        (
            vec![unknown, null],
            Some(accepted),
            79,
            "closed",
            "end-of-data",
        ),
        (vec![bogus], Some(accepted), 75, "connect", "connect"),
    ] {
        let mut seen = Vec::new();
        let mut recipients: Vec<&str> = failed.iter().copied().chain(accepted).collect();
        for _ in 0..recipients.len() {
            recipients.rotate_left(1);
            let run = send(&recipients, &[]).await;
            run.exits_with(code);
            let mut json = run.json();
            let error = json["error"].take();
            assert_eq!(
                (&error["kind"], &error["phase"]),
                (&json!(kind), &json!(phase))
            );
            assert_eq!(error["transient"], code == 75);
            let message = error["message"].as_str().unwrap();
            let hint = error["hint"].as_str().unwrap();
            assert!(!message.contains(hint), "{message}");
            // One failure after the other, on standard error with the hint of each.
            let lines: Vec<&str> = run.stderr.lines().collect();
            let starts: Vec<&&str> = lines
                .iter()
                .filter(|line| line.starts_with("send: "))
                .collect();
            assert_eq!(starts.len(), failed.len(), "{}", run.stderr);
            for (start, recipient) in starts.iter().zip(&failed) {
                assert!(start.contains(recipient), "{}", run.stderr);
            }
            let hints = lines.iter().filter(|line| line.starts_with("  hint: "));
            assert_eq!(hints.count(), failed.len(), "{}", run.stderr);
            let first = lines.iter().find_map(|line| line.strip_prefix("  hint: "));
            assert_eq!(first, Some(hint));
            seen.push(error);
        }
        assert!(seen.iter().all(|error| *error == seen[0]), "{seen:#?}");
    }
}

/// A proxy that answers each connection with these bytes, in answer to the greeting and the request
/// of SOCKS5, or to the request of HTTP. Returns its URL.
async fn proxy(scheme: &str, answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let is_socks = scheme == "socks5";
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufStream::new(stream);
            for (place, answer) in answers.iter().enumerate() {
                // All of it, as otherwise closing the connection would take the answer back.
                match (is_socks, place) {
                    (true, 0) => {
                        let mut head = [0; 2];
                        stream.read_exact(&mut head).await.unwrap();
                        let mut methods = vec![0; head[1].into()];
                        stream.read_exact(&mut methods).await.unwrap();
                    }
                    (true, _) => {
                        let mut request = [0; 10];
                        stream.read_exact(&mut request).await.unwrap();
                    }
                    (false, _) => {
                        let mut line = String::new();
                        while line != "\r\n" {
                            line.clear();
                            stream.read_line(&mut line).await.unwrap();
                        }
                    }
                }
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    });
    url
}

/// What a proxy refuses has the same meaning with `--mx` as without.
#[tokio::test]
async fn send_exits_by_what_a_proxy_says() {
    let socks = |code| vec![vec![5, 0], vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0]];
    let http = |status| {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        vec![answer.into_bytes()]
    };
    for (scheme, answers, code, kind) in [
        ("socks5", socks(1), 75, "connect"),
        ("socks5", socks(2), 69, "refused"),
        ("socks5", socks(5), 75, "connect"),
        ("socks5", socks(7), 69, "unsupported"),
        ("socks5", vec![vec![5, 255]], 77, "auth"),
        ("http", http("403 Forbidden"), 69, "refused"),
        ("http", http("407 Login Required"), 77, "auth"),
        ("http", http("502 Bad Gateway"), 75, "connect"),
    ] {
        let url = proxy(scheme, answers).await;
        let by_mx = ["--mx", "--mta-sts=off", "--resolver=127.0.0.1:1"];
        let by_url = ["--url=smtp://192.0.2.1:25?tls=none"];
        for place in [&by_mx[..], &by_url] {
            let message = ["--from=me@example.org", "--to=you@[192.0.2.1]", "--body=b"];
            let options = ["--json", "--timeout=30", "--proxy", &url];
            let run = program::run("send", &[place, &message, &options].concat(), b"", &[]).await;
            run.exits_with(code);
            let error = &run.json()["error"];
            assert_eq!(error["kind"], kind, "{error}");
            assert_eq!(error["transient"], code == 75, "{error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&format!("the proxy {url}")), "{message}");
            assert!(error["hint"].is_string(), "{error}");
        }
    }
}

/// There is no URL that could have the name.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_names_the_option_for_a_name_that_is_refused() {
    let refusal = "550 5.7.1 Helo command rejected: need fully-qualified hostname";
    let _server = server(250, Some(Fault::reply(Step::Rcpt, refusal))).await;
    let run = send(&[&format!("z@[{}]", lab().address(250))], &[]).await;
    run.exits_with(69);
    let json = run.json();
    let hint = json["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("as DNS has it (--helo)."), "{hint}");
}
