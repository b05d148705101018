//! A message that goes in parts (LIMITS, RFC 9422): each recipient has one outcome, which is what
//! the server did, and no part is more than it takes.

use std::collections::HashSet;

use envoi::mail_builder::MessageBuilder;
use envoi::testing::Server;
use envoi::{Client, Outcome};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::Runtime;

fn domain(address: &str) -> String {
    address
        .rsplit('@')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn each_recipient_of_a_split_message_has_one_outcome(
        to in vec((0..4u8, any::<bool>()), 1..9),
        recipients in 1..4usize,
        domains in 1..3usize,
        messages in 1..4usize,
    ) {
        let to: Vec<(String, bool)> = to
            .into_iter()
            .enumerate()
            .map(|(n, (domain, is_refused))| (format!("user{n}@d{domain}.example.org"), is_refused && n % 2 == 1))
            .collect();
        let runtime = Runtime::new().unwrap();
        let (receipt, arrived) = runtime.block_on(async {
            let limits = format!("LIMITS RCPTMAX={recipients} RCPTDOMAINMAX={domains} \
                MAILMAX={messages}");
            let refused = to.iter().filter(|(_, is_refused)| *is_refused);
            let builder = Server::builder().plaintext().offer(limits);
            let builder = refused.fold(builder, |builder, (address, _)| {
                builder.refuse_recipient(address, "550 5.1.1 No")
            });
            let server = builder.start().await.unwrap();
            let names: Vec<String> = to.iter().map(|(address, _)| address.clone()).collect();
            let mail = MessageBuilder::new().from("me@example.org").to(names).subject("Hello")
                .text_body("Hello.");
            let receipt = Client::from_url(&server.url()).unwrap().send(mail).await.unwrap();
            (receipt, server.messages())
        });

        prop_assert_eq!(receipt.recipients.len(), to.len());
        for ((address, is_refused), told) in to.iter().zip(&receipt.recipients) {
            prop_assert_eq!(told.address.as_str(), address);
            prop_assert_eq!(matches!(told.outcome, Outcome::Accepted(_)), !is_refused, "{}", address);
            let copies = arrived.iter().filter(|message| message.recipients.contains(address))
                .count();
            prop_assert_eq!(copies, usize::from(!is_refused), "{}", address);
        }
        for message in &arrived {
            prop_assert!(message.recipients.len() <= recipients);
            let found: HashSet<String> = message.recipients.iter()
                .map(|address| domain(address)).collect();
            prop_assert!(found.len() <= domains, "{:?}", found);
        }
    }
}
