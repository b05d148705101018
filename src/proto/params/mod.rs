//! Parameters of MAIL and RCPT beyond addresses: ESMTP extensions for a message.

mod deliver_by;
mod dsn;
mod duration;
mod error;
mod future_release;
mod priority;
#[cfg(feature = "serde")]
mod serde;
mod xtext;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use deliver_by::DeliverBy;
pub use dsn::{DsnReturn, EnvelopeId, Notify, OriginalRecipient};
pub(crate) use duration::MAX_SECONDS;
pub use error::ParameterError;
pub use future_release::FutureRelease;
pub use priority::Priority;

use super::{Capabilities, Reason};
use crate::address::Address;
use crate::date;
use future_release::HoldKind;
use xtext::Xtext;

/// ESMTP parameters for a message.
///
/// Each option needs an extension. If the server does not offer it, the message is not sent:
/// sending fails before MAIL, with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
///
/// ```
/// use std::time::Duration;
/// use envoi::delivery::{DeliverBy, DsnReturn, EnvelopeId, Notify};
/// use envoi::{DeliveryOptions, Message, mail_builder::MessageBuilder};
///
/// let delivery = DeliveryOptions::new()
///     .notify(Notify::SUCCESS | Notify::FAILURE)
///     .returned(DsnReturn::Headers)
///     .envelope_id(EnvelopeId::new("invoice 4711")?)
///     .deliver_by(DeliverBy::or_notify(Duration::from_secs(3600))?);
/// let mail = MessageBuilder::new()
///     .from("alice@example.org")
///     .to("bob@example.com")
///     .text_body("Hello.");
/// let message = Message::from(mail).delivery(delivery);
/// # Ok::<(), envoi::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it asks for nothing until a message is sent with it"]
pub struct DeliveryOptions {
    notify: Option<Notify>,
    returned: Option<DsnReturn>,
    envelope_id: Option<EnvelopeId>,
    /// Options by mailbox, shared by the transactions of a message.
    recipients: Arc<BTreeMap<(String, String), ForRecipient>>,
    deliver_by: Option<DeliverBy>,
    hold: Option<FutureRelease>,
    priority: Option<Priority>,
    require_tls: bool,
    submitter: Option<Option<Address>>,
}

/// The options for a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ForRecipient {
    address: Address,
    notify: Option<Notify>,
    original: Option<OriginalRecipient>,
}

impl ForRecipient {
    /// Options without a value.
    fn new(address: Address) -> Self {
        ForRecipient {
            address,
            notify: None,
            original: None,
        }
    }

    /// Whether an option needs DSN.
    fn needs_dsn(&self) -> bool {
        self.notify.is_some() || self.original.is_some()
    }
}

impl DeliveryOptions {
    /// Creates options that request nothing.
    pub fn new() -> Self {
        DeliveryOptions::default()
    }

    /// Requests reports (DSN, RFC 3461, NOTIFY). They name the recipients as given here (ORCPT),
    /// unless that was [set](Self::original_recipient).
    pub fn notify(mut self, notify: Notify) -> Self {
        self.notify = Some(notify);
        self
    }

    /// Requests reports for one recipient of the message, which overrides [`notify`](Self::notify).
    pub fn notify_for(mut self, recipient: Address, notify: Notify) -> Self {
        self.for_recipient(recipient).notify = Some(notify);
        self
    }

    /// Sets the original recipient in reports (DSN, ORCPT), for programs that relay messages. A
    /// [requested](Self::notify) report contains the recipient's address by default.
    pub fn original_recipient(mut self, recipient: Address, original: OriginalRecipient) -> Self {
        self.for_recipient(recipient).original = Some(original);
        self
    }

    /// Sets what a failure report returns (DSN, RET).
    pub fn returned(mut self, returned: DsnReturn) -> Self {
        self.returned = Some(returned);
        self
    }

    /// Sets the identifier of the message in reports (DSN, ENVID).
    pub fn envelope_id(mut self, id: EnvelopeId) -> Self {
        self.envelope_id = Some(id);
        self
    }

    /// Sets the time of delivery (DELIVERBY, RFC 2852). If the message is to be returned when it is
    /// late, the time must not be less than the server's [minimum](Capabilities::min_deliver_by).
    pub fn deliver_by(mut self, deliver_by: DeliverBy) -> Self {
        self.deliver_by = Some(deliver_by);
        self
    }

    /// Holds the message (FUTURERELEASE, RFC 4865), not longer than the server
    /// [offers](Capabilities::future_release).
    pub fn hold(mut self, hold: FutureRelease) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Sets the priority (MT-PRIORITY, RFC 6710), whose meaning depends on the server's
    /// [profile](Capabilities::priority_profile).
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Requires verified TLS on the whole way; otherwise the message is returned (REQUIRETLS, RFC
    /// 8689). The connection to this server must comply too, or sending fails with
    /// [`ErrorKind::Tls`](crate::ErrorKind::Tls).
    pub fn require_tls(mut self, yes: bool) -> Self {
        self.require_tls = yes;
        self
    }

    /// Sets the user who originally submitted the message (AUTH=, RFC 4954, 5), for trusted relays;
    /// `None` means that the user is not known.
    pub fn submitter(mut self, submitter: impl Into<Option<Address>>) -> Self {
        self.submitter = Some(submitter.into());
        self
    }

    /// On what a report is sent.
    pub fn get_notify(&self) -> Option<Notify> {
        self.notify
    }

    /// What a report of failure returns.
    pub fn get_returned(&self) -> Option<&DsnReturn> {
        self.returned.as_ref()
    }

    /// The name of the message in reports.
    pub fn get_envelope_id(&self) -> Option<&EnvelopeId> {
        self.envelope_id.as_ref()
    }

    /// The time by which it is to be delivered.
    pub fn get_deliver_by(&self) -> Option<&DeliverBy> {
        self.deliver_by.as_ref()
    }

    /// How long it is to be held.
    pub fn get_hold(&self) -> Option<&FutureRelease> {
        self.hold.as_ref()
    }

    /// The priority.
    pub fn get_priority(&self) -> Option<&Priority> {
        self.priority.as_ref()
    }

    /// Whether it must go by verified TLS alone.
    pub fn get_require_tls(&self) -> bool {
        self.require_tls
    }

    fn for_recipient(&mut self, address: Address) -> &mut ForRecipient {
        let recipients = Arc::make_mut(&mut self.recipients);
        recipients
            .entry(address.mailbox_key())
            .or_insert_with(|| ForRecipient::new(address))
    }

    /// Checks that per-recipient options name recipients of the envelope.
    #[cfg(feature = "client")]
    pub(crate) fn check_recipients(&self, recipients: &[Address]) -> Result<(), ParameterError> {
        if self.recipients.is_empty() {
            return Ok(());
        }
        let given: std::collections::HashSet<_> =
            recipients.iter().map(Address::mailbox_key).collect();
        match self
            .recipients
            .iter()
            .find(|(mailbox, _)| !given.contains(mailbox))
        {
            Some((_, ForRecipient { address, .. })) => {
                Err(ParameterError::NotARecipient(address.clone()))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn requires_tls(&self) -> bool {
        self.require_tls
    }

    /// The first requested option that the server does not offer, or not to this extent.
    pub(super) fn find_obstacle(&self, server: &Capabilities) -> Option<Reason> {
        let needs_dsn = self.notify.is_some()
            || self.returned.is_some()
            || self.envelope_id.is_some()
            || self.recipients.values().any(ForRecipient::needs_dsn);
        for (is_asked_for, keyword, rfc, need) in [
            (needs_dsn, "DSN", 3461, "reports of delivery are asked for"),
            (
                self.deliver_by.is_some(),
                "DELIVERBY",
                2852,
                "the message is to be delivered within a certain time",
            ),
            (
                self.hold.is_some(),
                "FUTURERELEASE",
                4865,
                "the message is to be held",
            ),
            (
                self.priority.is_some(),
                "MT-PRIORITY",
                6710,
                "the message has a priority",
            ),
            (
                self.require_tls,
                "REQUIRETLS",
                8689,
                "the message is to go by TLS alone, all the way",
            ),
            (
                self.submitter.is_some(),
                "AUTH",
                4954,
                "the server is to be told who submitted the message (AUTH=)",
            ),
        ] {
            if is_asked_for && !server.offers(keyword) {
                return Some(Reason::ExtensionNotOffered { keyword, rfc, need });
            }
        }
        if let (Some(by), Some(min)) = (&self.deliver_by, server.min_deliver_by())
            && by.returns()
            && by.within() < min
        {
            let within = by.within();
            return Some(Reason::DeliverByTooShort { within, min });
        }
        let FutureRelease(hold) = self.hold?;
        let offer = server.future_release().unwrap_or_default();
        match (hold, offer.max_interval, offer.max_until) {
            (HoldKind::For(seconds), Some(max), _) if seconds > max.as_secs() => {
                let hold = Duration::from_secs(seconds);
                Some(Reason::HoldTooLong { hold, max })
            }
            (HoldKind::Until(seconds), _, Some(max))
                if date::seconds(max).is_some_and(|max| seconds > max) =>
            {
                let until = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                Some(Reason::HoldTooLate { until, max })
            }
            _ => None,
        }
    }

    /// The parameters of MAIL, each with a blank before it.
    pub(crate) fn write_mail(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(returned) = &self.returned {
            write!(f, " RET={returned}")?;
        }
        if let Some(id) = &self.envelope_id {
            write!(f, " ENVID={id}")?;
        }
        if let Some(by) = &self.deliver_by {
            write!(f, " BY={by}")?;
        }
        if let Some(hold) = &self.hold {
            write!(f, " {hold}")?;
        }
        if let Some(priority) = &self.priority {
            write!(f, " MT-PRIORITY={priority}")?;
        }
        if self.require_tls {
            f.write_str(" REQUIRETLS")?;
        }
        match &self.submitter {
            Some(Some(address)) => {
                let ascii = address.to_ascii();
                let text = ascii.as_deref().unwrap_or(address).as_str();
                write!(f, " AUTH={}", Xtext(text))?;
            }
            Some(None) => f.write_str(" AUTH=<>")?,
            None => {}
        }
        Ok(())
    }

    /// The parameters of RCPT for this recipient, each with a blank before it; `spelt` is the
    /// address as written in the command.
    pub(crate) fn write_rcpt(
        &self,
        recipient: &Address,
        spelt: &Address,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let is_for_some = !self.recipients.is_empty();
        let own = is_for_some
            .then(|| self.recipients.get(&recipient.mailbox_key()))
            .flatten();
        let notify = own.and_then(|own| own.notify).or(self.notify);
        if let Some(notify) = notify {
            write!(f, " NOTIFY={notify}")?;
        }
        match own.and_then(|own| own.original.as_ref()) {
            Some(original) => write!(f, " ORCPT={original}")?,
            // The server may rewrite the address: a report still names the one that the sender
            // knows.
            None if notify.is_some_and(|notify| notify != Notify::NEVER) => {
                write!(f, " ORCPT={}", OriginalRecipient::address(spelt))?;
            }
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_for_a_recipient_without_dsn_do_not_need_dsn() {
        let bob = Address::new("bob@example.com").unwrap();
        let mut options = DeliveryOptions::new();
        options.for_recipient(bob.clone());
        assert!(options.find_obstacle(&Capabilities::default()).is_none());

        let options = options.notify_for(bob, Notify::NEVER);
        assert!(matches!(
            options.find_obstacle(&Capabilities::default()),
            Some(Reason::ExtensionNotOffered { keyword: "DSN", .. })
        ));
    }
}
