//! What is asked of a server beyond taking a message, and what it does not offer, or not as much
//! of.

use std::time::{Duration, SystemTime};

use envoi::delivery::{DeliverBy, EnvelopeId, FutureRelease, Notify, Priority};
use envoi::mail_builder::MessageBuilder;
use envoi::{Address, DeliveryOptions, ErrorKind, Message, Phase};

use tokio_rustls::rustls::ServerConfig;

use crate::case::{Case, Party, World, case, hello, leaf, play};
use crate::servers::{Script, Server, config};

const URL: &str = "smtp://127.0.0.1:{port}?tls=none";

fn unsupported(name: &'static str, script: Script, message: fn() -> Message<'static>) -> Case {
    case(
        name,
        Server::Plain(script),
        URL,
        ErrorKind::Unsupported,
        Phase::Mail,
        69,
    )
    .message(message)
}

const NOTHING: Script = &[("EHLO", "250 mail.example.org")];
const TIMES: Script = &[(
    "EHLO",
    "250-mail.example.org\r\n250-DELIVERBY 240\r\n250 FUTURERELEASE 86400 2027-01-01T00:00:00Z",
)];

/// All or nothing, which cannot go in parts.
fn at_once(name: &'static str, limits: Script) -> Case {
    unsupported(name, limits, || {
        let to = vec!["a@example.com", "b@example.org", "c@example.net"];
        MessageBuilder::new()
            .from("me@example.org")
            .to(to)
            .subject("Hello")
            .text_body("Hello.\n")
            .into()
    })
    .with(|endpoint, _| endpoint.all_or_nothing(true))
}

fn untrusted(world: &World) -> ServerConfig {
    config(&[&Party::new(leaf(&["localhost"]), Some(&world.other))])
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

#[tokio::test]
async fn unsupported_requests_have_their_pinned_texts() {
    let cases = vec![
        unsupported("no DSN, for NOTIFY", NOTHING, || {
            hello().delivery(DeliveryOptions::new().notify(Notify::SUCCESS))
        }),
        unsupported("no DSN, for ENVID", NOTHING, || {
            hello().delivery(DeliveryOptions::new().envelope_id(EnvelopeId::new("x").unwrap()))
        }),
        unsupported("no DELIVERBY", NOTHING, || {
            hello().delivery(
                DeliveryOptions::new().deliver_by(DeliverBy::or_return(minute()).unwrap()),
            )
        }),
        unsupported("DELIVERBY with more", TIMES, || {
            hello().delivery(
                DeliveryOptions::new().deliver_by(DeliverBy::or_return(minute()).unwrap()),
            )
        }),
        unsupported("no FUTURERELEASE", NOTHING, || {
            hello().delivery(
                DeliveryOptions::new().hold(FutureRelease::for_duration(minute()).unwrap()),
            )
        }),
        unsupported("FUTURERELEASE for less", TIMES, || {
            hello().delivery(
                DeliveryOptions::new().hold(FutureRelease::for_duration(2000 * minute()).unwrap()),
            )
        }),
        unsupported("FUTURERELEASE until an earlier time", TIMES, || {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_830_000_000);
            hello().delivery(DeliveryOptions::new().hold(FutureRelease::until(time).unwrap()))
        }),
        unsupported("no MT-PRIORITY", NOTHING, || {
            hello().delivery(DeliveryOptions::new().priority(Priority::new(5).unwrap()))
        }),
        unsupported("no AUTH, for AUTH=", NOTHING, || {
            hello().delivery(
                DeliveryOptions::new().submitter(Address::new("alice@example.org").unwrap()),
            )
        }),
        at_once(
            "LIMITS RCPTMAX",
            &[("EHLO", "250-mail.example.org\r\n250 LIMITS RCPTMAX=2")],
        ),
        at_once(
            "LIMITS RCPTDOMAINMAX",
            &[("EHLO", "250-mail.example.org\r\n250 LIMITS RCPTDOMAINMAX=1")],
        ),
        case(
            "REQUIRETLS without TLS",
            Server::Plain(NOTHING),
            URL,
            ErrorKind::Tls,
            Phase::Mail,
            76,
        )
        .message(|| hello().delivery(DeliveryOptions::new().require_tls(true))),
        case(
            "REQUIRETLS is not offered",
            Server::Implicit(NOTHING),
            "smtps://localhost:{port}",
            ErrorKind::Unsupported,
            Phase::Mail,
            69,
        )
        .message(|| hello().delivery(DeliveryOptions::new().require_tls(true))),
        case(
            "REQUIRETLS with an untrusted certificate",
            Server::StartTls(
                untrusted,
                &[(
                    "EHLO",
                    "250-mail.example.org\r\n250-STARTTLS\r\n250 REQUIRETLS",
                )],
            ),
            "smtp://localhost:{port}?tls=opportunistic",
            ErrorKind::Tls,
            Phase::Mail,
            76,
        )
        .message(|| hello().delivery(DeliveryOptions::new().require_tls(true))),
    ];
    play("extensions", cases).await;
}
