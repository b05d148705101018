//! What the feature `tracing` tells: each message with its outcome, each step with its host and
//! duration, the dialogue, and no secret.

use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;
use envoi::{Client, Message};
use support::hello;
use support::log::Log;

#[tokio::test]
async fn tracing_shows_phases_and_dialogue_but_no_secrets() {
    let (log, _told) = Log::keep();

    let server = Server::builder()
        .login("alice", "correct-horse")
        .start()
        .await
        .unwrap();
    let hello = || {
        MessageBuilder::new()
            .from("me@example.org")
            .to("you@example.com")
            .text_body("Hello")
    };
    let receipt = Client::from_url(&server.url())
        .unwrap()
        .send(hello())
        .await
        .unwrap();
    assert!(receipt.all_accepted());
    let wrong = server.url().replace("correct", "wrong");
    Client::from_url(&wrong)
        .unwrap()
        .send(hello())
        .await
        .unwrap_err();

    let text = log.text();
    let queue_id = receipt.queue_id().unwrap();
    let sent = format!(
        "outcome=\"accepted\" bytes={} recipients=1 accepted=1 queue_id=\"{queue_id}\"",
        receipt.bytes
    );
    for words in [
        "INFO smtp{step=\"send\" host=\"localhost\"}: envoi: sent seconds=",
        &sent,
        "WARN smtp{step=\"send\" host=\"localhost\"}: envoi: ",
        "outcome=\"permanent\" bytes=0 recipients=1 accepted=0",
        "smtp{step=\"connect\" host=\"localhost\"}",
        "step=\"tls\"",
        "step=\"login\"",
        "step=\"submit\"",
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

#[tokio::test]
async fn tracing_shows_each_handover() {
    let (log, _told) = Log::keep();
    let server = Server::builder().plaintext().start().await.unwrap();
    let client = Client::from_url(&server.url()).unwrap();
    let message = |permission: Result<(), &'static str>| {
        Message::from(hello()).on_handover(move |_| async move { permission })
    };
    assert!(client.send(message(Ok(()))).await.unwrap().handed_over);
    let refused = client.send(message(Err("the disk is full"))).await;
    assert!(refused.is_err());
    let text = log.text();
    for words in [
        "step=\"submit\" host=\"localhost\"}: envoi: handed over seconds=",
        " number=1",
        "envoi: the program did not permit the hand-over of the message: the disk is full",
        "phase=\"hand-over\" kind=\"hand-over\"",
    ] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
}
