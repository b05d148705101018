//! Mailboxes and lists as texts, in data and in settings.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::parse::{AddressParser, parse};
use super::{Mailbox, MailboxList};
use crate::address::Address;

/// As for an [`Address`] itself: what was serialized can be read again.
const LENIENT: AddressParser = Address::lenient;

impl Serialize for Mailbox {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Mailbox::parse(&text, LENIENT).map_err(de::Error::custom)
    }
}

impl Serialize for MailboxList {
    /// Writes one text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MailboxList {
    /// Reads one text, or a list of texts.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = MailboxList;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mailboxes, in one text or in a list")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MailboxList, E> {
        parse(text, LENIENT).map(MailboxList).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<MailboxList, A::Error> {
        let mut list = MailboxList::new();
        while let Some(text) = elements.next_element::<String>()? {
            list.extend(parse(&text, LENIENT).map_err(de::Error::custom)?);
        }
        Ok(list)
    }
}
