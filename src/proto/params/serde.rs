//! Parameters of MAIL and RCPT as data, for programs that store messages before they send them.
//!
//! Values are written as in the commands, and are validated when they are read.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use super::{
    DeliverBy, DeliveryOptions, DsnReturn, EnvelopeId, ForRecipient, FutureRelease, Notify,
    OriginalRecipient, Priority,
};
use crate::address::Address;
use crate::date;

/// [`DeliveryOptions`] as data. What is not requested is left out.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "DeliveryOptions", deny_unknown_fields)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    returned: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envelope_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<RecipientFields>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deliver_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<i8>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    require_tls: bool,
    /// `<>` if the submitter is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    submitter: Option<String>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipientFields {
    address: Address,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    original: Option<String>,
}

impl Serialize for DeliveryOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // In full, so that a new option is not forgotten.
        let DeliveryOptions {
            notify,
            returned,
            envelope_id,
            recipients,
            deliver_by,
            hold,
            priority,
            require_tls,
            submitter,
        } = self;
        let recipients = recipients.values().map(|recipient| RecipientFields {
            address: recipient.address.clone(),
            notify: recipient.notify.map(|notify| notify.to_string()),
            original: recipient.original.as_ref().map(ToString::to_string),
        });
        let fields = Fields {
            notify: notify.map(|notify| notify.to_string()),
            returned: returned.map(|returned| returned.to_string()),
            envelope_id: envelope_id.as_ref().map(|id| id.as_str().to_owned()),
            recipients: recipients.collect(),
            deliver_by: deliver_by.map(|by| by.to_string()),
            hold: hold.map(|hold| hold.to_string()),
            priority: priority.map(Priority::get),
            require_tls: *require_tls,
            submitter: submitter.as_ref().map(|address| match address {
                Some(address) => address.to_string(),
                None => "<>".to_owned(),
            }),
        };
        fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DeliveryOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        let mut options = DeliveryOptions {
            notify: parsed::<Notify, D>(fields.notify)?,
            returned: parsed::<DsnReturn, D>(fields.returned)?,
            envelope_id: parsed::<EnvelopeId, D>(fields.envelope_id)?,
            deliver_by: with::<_, D>(fields.deliver_by, deliver_by)?,
            hold: with::<_, D>(fields.hold, hold)?,
            require_tls: fields.require_tls,
            ..DeliveryOptions::default()
        };
        if let Some(priority) = fields.priority {
            options.priority = Some(Priority::new(priority).map_err(D::Error::custom)?);
        }
        options.submitter = match fields.submitter.as_deref() {
            None => None,
            Some("<>") => Some(None),
            Some(address) => {
                let address = Address::lenient(address).map_err(D::Error::custom)?;
                Some(Some(address))
            }
        };
        for recipient in fields.recipients {
            let ForRecipient {
                notify, original, ..
            } = options.for_recipient(recipient.address);
            *notify = parsed::<Notify, D>(recipient.notify)?;
            *original = with::<_, D>(recipient.original, original_recipient)?;
        }
        Ok(options)
    }
}

fn parsed<'de, T, D>(text: Option<String>) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr<Err = super::ParameterError>,
    D: Deserializer<'de>,
{
    let value = text.map(|text| text.parse());
    value.transpose().map_err(D::Error::custom)
}

fn with<'de, T, D: Deserializer<'de>>(
    text: Option<String>,
    parse: fn(&str) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    text.map(|text| {
        let quoted = crate::text::quoted(&text);
        parse(&text).ok_or_else(|| D::Error::custom(format!("{quoted} is not a valid value")))
    })
    .transpose()
}

/// The value of BY, such as `3600;RT` (RFC 2852).
fn deliver_by(text: &str) -> Option<DeliverBy> {
    let (seconds, mode) = text.split_once(';')?;
    let within = Duration::from_secs(seconds.parse().ok()?);
    match mode {
        "R" => DeliverBy::or_return(within).ok(),
        "N" => DeliverBy::or_notify(within).ok(),
        "RT" => DeliverBy::or_return(within).ok().map(DeliverBy::traced),
        "NT" => DeliverBy::or_notify(within).ok().map(DeliverBy::traced),
        _ => None,
    }
}

/// The parameter with its keyword, such as `HOLDFOR=3600` (RFC 4865).
fn hold(text: &str) -> Option<FutureRelease> {
    match text.split_once('=')? {
        ("HOLDFOR", seconds) => {
            FutureRelease::for_duration(Duration::from_secs(seconds.parse().ok()?)).ok()
        }
        ("HOLDUNTIL", time) => FutureRelease::until(date::from_text(time)?).ok(),
        _ => None,
    }
}

/// The value of ORCPT, encoded, such as `rfc822;bob@example.com` (RFC 3461).
fn original_recipient(text: &str) -> Option<OriginalRecipient> {
    OriginalRecipient::encoded(text)
}
