//! What the feature `tracing` tells: each step with its host and duration, the dialogue, and no secret.

use std::io;
use std::sync::{Arc, Mutex};

use envoi::Client;
use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn steps_and_dialogue_without_secrets() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _told = tracing::subscriber::set_default(subscriber);

    let server = Server::builder().login("alice", "correct-horse").start().await.unwrap();
    let hello = || MessageBuilder::new().from("me@example.org").to("you@example.com").text_body("Hello");
    let receipt = Client::from_url(&server.url()).unwrap().send(hello()).await.unwrap();
    assert!(receipt.all_accepted());
    let wrong = server.url().replace("correct", "wrong");
    Client::from_url(&wrong).unwrap().send(hello()).await.unwrap_err();

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for words in [
        "smtp{step=\"connect\" host=\"localhost\"}",
        "step=\"tls\"",
        "step=\"login\"",
        "step=\"send\"",
        "done seconds=",
        "C: AUTH PLAIN ***",
        "kind=\"auth\"",
    ] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
    for secret in ["correct-horse", "wrong-horse", "AGFsaWNl"] {
        assert!(!text.contains(secret), "{secret} is in:\n{text}");
    }
}
