//! Addresses, envelopes, delivery options and results as data (feature `serde`).

use std::time::{Duration, SystemTime};

use envoi::delivery::{
    DeliverBy, DsnReturn, EnvelopeId, FutureRelease, Notify, OriginalRecipient, Priority,
};
use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;
use envoi::{
    Address, Client, DeliveryOptions, Envelope, Mailbox, MailboxList, Message, Receipt, Secret,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

/// The message of the error that refuses this.
fn refused<T: DeserializeOwned>(value: serde_json::Value) -> String {
    match serde_json::from_value::<T>(value.clone()) {
        Ok(_) => panic!("accepted: {value}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn addresses_and_mailboxes_are_texts() {
    let address = Address::new("bob@example.org").unwrap();
    assert_eq!(
        serde_json::to_value(&address).unwrap(),
        json!("bob@example.org")
    );
    // Every address that can be made can be read again.
    for address in [address, Address::lenient("a..b@example.org").unwrap()] {
        assert_eq!(again(&address), address);
        let mailbox = Mailbox::with_name("Bob, Jr.", address.clone()).unwrap();
        assert_eq!(again(&mailbox), mailbox);
        let list = MailboxList::from_iter([mailbox, address.into()]);
        assert_eq!(again(&list), list);
    }
    let list: MailboxList =
        serde_json::from_value(json!(["a@x.test, b@x.test", "C <c@x.test>"])).unwrap();
    assert_eq!(list.to_string(), "a@x.test, b@x.test, C <c@x.test>");
    assert!(refused::<Address>(json!("bob\r\nDATA@example.org")).contains("not valid"));
    assert!(refused::<Mailbox>(json!("a@x.test, b@x.test")).contains("a list"));
    assert!(refused::<MailboxList>(json!(["a@x.test", "Bob"])).contains("no address"));
    assert!(refused::<MailboxList>(json!(3)).contains("mailboxes, in one text or in a list"));
    assert!(serde_json::from_value::<Secret>(json!("hunter2")).unwrap() == Secret::new("hunter2"));
}

#[test]
fn an_envelope_is_validated_when_it_is_read() {
    let envelope = Envelope::new("me@example.org", ["a@x.test", "b@x.test"]).unwrap();
    let data = json!({"reverse_path": "me@example.org", "recipients": ["a@x.test", "b@x.test"]});
    assert_eq!(serde_json::to_value(&envelope).unwrap(), data);
    assert_eq!(again(&envelope), envelope);
    let notice = Envelope::new(None, ["a@x.test"]).unwrap();
    assert_eq!(again(&notice), notice);
    assert!(refused::<Envelope>(json!({"recipients": ["a@x.test"]})).contains("reverse_path"));
    let none = json!({"reverse_path": null, "recipients": []});
    assert!(refused::<Envelope>(none).contains("no recipient"));
    let misspelt = json!({"reverse_path": null, "recipients": ["a@x.test"], "recipient": "b@x"});
    assert!(refused::<Envelope>(misspelt).contains("unknown field"));
}

#[test]
fn delivery_options_are_read_as_they_were_written() {
    let bob = Address::new("bob@example.org").unwrap();
    let minute = Duration::from_secs(60);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let original = OriginalRecipient::of_type("x400", "/C=de+x/").unwrap();
    let beyond_ascii = Address::new("j\u{f6}rg@b\u{fc}cher.example").unwrap();
    let all = DeliveryOptions::new()
        .notify(Notify::SUCCESS | Notify::DELAY)
        .returned(DsnReturn::Headers)
        .envelope_id(EnvelopeId::new("invoice 4711").unwrap())
        .deliver_by(DeliverBy::or_notify(minute).unwrap().traced())
        .hold(FutureRelease::until(time).unwrap())
        .priority(Priority::new(-3).unwrap())
        .require_tls(true)
        .submitter(Address::new("alice@example.org").unwrap())
        .notify_for(bob.clone(), Notify::NEVER)
        .original_recipient(bob.clone(), original)
        .original_recipient(
            beyond_ascii.clone(),
            OriginalRecipient::address(&beyond_ascii),
        );
    for options in [
        DeliveryOptions::new(),
        all,
        DeliveryOptions::new().submitter(None),
        DeliveryOptions::new().hold(FutureRelease::for_duration(minute).unwrap()),
        DeliveryOptions::new().deliver_by(DeliverBy::or_return(minute).unwrap()),
        DeliveryOptions::new().deliver_by(DeliverBy::or_return(minute).unwrap().traced()),
        DeliveryOptions::new().notify(Notify::NEVER),
    ] {
        assert_eq!(again(&options), options);
    }
    assert_eq!(
        serde_json::to_value(DeliveryOptions::new()).unwrap(),
        json!({})
    );
    for wrong in [
        json!({"notify": "always"}),
        json!({"returned": "half"}),
        json!({"envelope_id": "a\r\nDATA"}),
        json!({"deliver_by": "60"}),
        json!({"deliver_by": "0;R"}),
        json!({"deliver_by": "60;R\r\nDATA"}),
        json!({"hold": "HOLDFOR=soon"}),
        json!({"hold": "60"}),
        json!({"priority": 10}),
        json!({"submitter": "a\r\nb@x.test"}),
        json!({"recipients": [{"address": "a@x.test", "original": "rfc822;a b"}]}),
        json!({"recipients": [{"address": "a@x.test", "original": "rfc822;a\r\nDATA"}]}),
        json!({"recipients": [{"address": "a@x.test", "original": "a@x.test"}]}),
        json!({"notfy": "never"}),
    ] {
        refused::<DeliveryOptions>(wrong);
    }
}

#[tokio::test]
async fn a_receipt_is_written_without_secrets() {
    let server = Server::builder()
        .login("alice", "hunter2hunter2")
        .start()
        .await
        .unwrap();
    let mail = MessageBuilder::new()
        .from("alice@example.org")
        .to("bob@example.com")
        .text_body("Hello.");
    let client = Client::from_url(&server.url()).unwrap();
    let receipt = client.send(Message::from(mail)).await.unwrap();
    let text = serde_json::to_string(&receipt).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let data: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(data["server"], json!(receipt.server));
    assert_eq!(data["bytes"], json!(receipt.bytes));
    assert_eq!(data["queue_id"], json!(receipt.queue_id()));
    assert_eq!(
        data["mechanism"],
        json!(receipt.mechanism.unwrap().as_str())
    );
    assert_eq!(data["reply"]["code"], json!(250));
    assert_eq!(data["tls"]["version"], json!("TLSv1.3"));
    assert_eq!(data["tls"]["verified"], json!(true));
    let peer = receipt.tls.as_ref().unwrap().peer().unwrap();
    assert_eq!(
        data["tls"]["chain"][0]["not_after"],
        json!(peer.not_after_text())
    );
    let recipient = &data["recipients"][0];
    assert_eq!(recipient["address"], json!("bob@example.com"));
    assert_eq!(recipient["outcome"], json!("accepted"));
    assert_eq!(recipient["final_reply"]["code"], json!(250));
    let lines: Vec<_> = receipt
        .transcript
        .lines()
        .map(|line| line.to_string())
        .collect();
    assert_eq!(data["transcript"], json!(lines));
    assert!(data["seconds"].as_f64().unwrap() > 0.0);

    let empty = serde_json::to_value(Receipt::new("mail.example.org")).unwrap();
    assert_eq!(empty["tls"], json!(null));
    assert_eq!(empty["recipients"], json!([]));
}
