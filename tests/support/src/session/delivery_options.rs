//! What can be asked of a server beyond taking a message, as plain values: a few of each kind, and
//! what of them must stand on the wire.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use envoi::delivery::{
    DeliverBy, DsnReturn, EnvelopeId, FutureRelease, Notify, OriginalRecipient, Priority,
};
use envoi::{Address, DeliveryOptions};

use super::wire::{from_utf8_xtext, from_xtext};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    NotifyOften,
    NotifyOfDelay,
    NotifyNever,
    /// These are about one recipient, the first one if there is one.
    NotifyOneNever,
    NotifyOneOfFailure,
    OriginalOfOne,
    ReturnHeaders,
    ReturnAll,
    EnvelopeId,
    ByOrReturn,
    ByOrNotify,
    HoldFor,
    HoldUntil,
    Priority,
    RequireTls,
    Submitter,
    NoSubmitter,
}

const ENVELOPE_ID: &str = "invoice 47+11=x";
const SUBMITTER: &str = "e+mc2=x@example.com";

impl Wish {
    pub const ALL: [Wish; 17] = [
        Wish::NotifyOften,
        Wish::NotifyOfDelay,
        Wish::NotifyNever,
        Wish::NotifyOneNever,
        Wish::NotifyOneOfFailure,
        Wish::OriginalOfOne,
        Wish::ReturnHeaders,
        Wish::ReturnAll,
        Wish::EnvelopeId,
        Wish::ByOrReturn,
        Wish::ByOrNotify,
        Wish::HoldFor,
        Wish::HoldUntil,
        Wish::Priority,
        Wish::RequireTls,
        Wish::Submitter,
        Wish::NoSubmitter,
    ];

    fn add(self, delivery: DeliveryOptions, one: &Address) -> DeliveryOptions {
        let hour = Duration::from_secs(3600);
        match self {
            Wish::NotifyOften => delivery.notify(Notify::SUCCESS | Notify::FAILURE),
            Wish::NotifyOfDelay => delivery.notify(Notify::DELAY),
            Wish::NotifyNever => delivery.notify(Notify::NEVER),
            Wish::NotifyOneNever => delivery.notify_for(one.clone(), Notify::NEVER),
            Wish::NotifyOneOfFailure => delivery.notify_for(one.clone(), Notify::FAILURE),
            Wish::OriginalOfOne => delivery.original_recipient(
                one.clone(),
                OriginalRecipient::of_type("x400", "/C=de/ +x").unwrap(),
            ),
            Wish::ReturnHeaders => delivery.returned(DsnReturn::Headers),
            Wish::ReturnAll => delivery.returned(DsnReturn::Full),
            Wish::EnvelopeId => delivery.envelope_id(EnvelopeId::new(ENVELOPE_ID).unwrap()),
            Wish::ByOrReturn => delivery.deliver_by(DeliverBy::or_return(hour).unwrap()),
            Wish::ByOrNotify => delivery.deliver_by(DeliverBy::or_notify(hour).unwrap().traced()),
            Wish::HoldFor => delivery.hold(FutureRelease::for_duration(hour).unwrap()),
            Wish::HoldUntil => delivery.hold(
                FutureRelease::until(SystemTime::UNIX_EPOCH + Duration::from_secs(951_825_600))
                    .unwrap(),
            ),
            Wish::Priority => delivery.priority(Priority::new(-3).unwrap()),
            Wish::RequireTls => delivery.require_tls(true),
            Wish::Submitter => delivery.submitter(Address::new(SUBMITTER).unwrap()),
            Wish::NoSubmitter => delivery.submitter(None),
        }
    }
}

/// All of them; of those that exclude each other the last one holds.
pub fn delivery(wishes: &[Wish], one: &Address) -> DeliveryOptions {
    wishes
        .iter()
        .fold(DeliveryOptions::new(), |delivery, wish| {
            wish.add(delivery, one)
        })
}

/// The keyword in the answer to EHLO without which a parameter must not be used.
pub fn extension(parameter: &str) -> &'static str {
    match parameter {
        "SIZE" => "SIZE",
        "SMTPUTF8" => "SMTPUTF8",
        "PRDR" => "PRDR",
        "RET" | "ENVID" | "NOTIFY" | "ORCPT" => "DSN",
        "BY" => "DELIVERBY",
        "HOLDFOR" | "HOLDUNTIL" => "FUTURERELEASE",
        "MT-PRIORITY" => "MT-PRIORITY",
        "REQUIRETLS" => "REQUIRETLS",
        "AUTH" => "AUTH",
        other => panic!("an unknown parameter: {other}"),
    }
}

/// What must stand behind the path of MAIL.
pub fn in_mail(wishes: &[Wish]) -> BTreeMap<&'static str, &'static str> {
    let mut expected = BTreeMap::new();
    for wish in wishes {
        let (parameter, value) = match wish {
            Wish::ReturnHeaders => ("RET", "HDRS"),
            Wish::ReturnAll => ("RET", "FULL"),
            Wish::EnvelopeId => ("ENVID", ENVELOPE_ID),
            Wish::ByOrReturn => ("BY", "3600;R"),
            Wish::ByOrNotify => ("BY", "3600;NT"),
            Wish::HoldFor => ("HOLDFOR", "3600"),
            Wish::HoldUntil => ("HOLDUNTIL", "2000-02-29T12:00:00Z"),
            Wish::Priority => ("MT-PRIORITY", "-3"),
            Wish::RequireTls => ("REQUIRETLS", ""),
            Wish::Submitter => ("AUTH", SUBMITTER),
            Wish::NoSubmitter => ("AUTH", "<>"),
            _ => continue,
        };
        if parameter.starts_with("HOLD") {
            expected.retain(|other: &&str, _| !other.starts_with("HOLD"));
        }
        expected.insert(parameter, value);
    }
    expected
}

/// What must stand behind the path of RCPT, which is `path` there.
pub fn in_rcpt(wishes: &[Wish], is_one: bool, path: &str) -> BTreeMap<&'static str, String> {
    let (mut for_all, mut own, mut original) = (None, None, None);
    for wish in wishes {
        match wish {
            Wish::NotifyOften => for_all = Some("SUCCESS,FAILURE"),
            Wish::NotifyOfDelay => for_all = Some("DELAY"),
            Wish::NotifyNever => for_all = Some("NEVER"),
            Wish::NotifyOneNever if is_one => own = Some("NEVER"),
            Wish::NotifyOneOfFailure if is_one => own = Some("FAILURE"),
            Wish::OriginalOfOne if is_one => original = Some("x400;/C=de/ +x".to_owned()),
            _ => {}
        }
    }
    let notify = own.or(for_all);
    if notify.is_some_and(|notify| notify != "NEVER") {
        original.get_or_insert_with(|| path.to_owned());
    }
    let expected = [("NOTIFY", notify.map(str::to_owned)), ("ORCPT", original)];
    expected
        .into_iter()
        .filter_map(|(parameter, value)| value.map(|value| (parameter, value)))
        .collect()
}

/// The value of a parameter as it was before it was encoded; of ORCPT for an address, that address.
pub fn decoded(parameter: &str, value: &str) -> String {
    match (parameter, value.split_once(';')) {
        ("ORCPT", Some(("rfc822", address))) => from_xtext(address),
        ("ORCPT", Some(("utf-8", address))) => from_utf8_xtext(address),
        ("ENVID" | "AUTH" | "ORCPT", _) => from_xtext(value),
        _ => value.to_owned(),
    }
}
