//! Mailboxes and lists of them as values of mail-builder's address headers.

use mail_builder::headers::address::Address as Mailboxes;

use crate::mailbox::{Entry, Group, Mailbox, MailboxList};

impl From<Mailbox> for Mailboxes<'_> {
    fn from(mailbox: Mailbox) -> Self {
        let name = mailbox.name().map(str::to_owned);
        Mailboxes::new_address(name, mailbox.address().to_string())
    }
}

impl From<Group> for Mailboxes<'_> {
    fn from(group: Group) -> Self {
        let mailboxes = group.mailboxes().iter().cloned().map(Into::into).collect();
        Mailboxes::new_group(Some(group.name().to_owned()), mailboxes)
    }
}

impl From<MailboxList> for Mailboxes<'_> {
    /// Keeps the groups.
    fn from(list: MailboxList) -> Self {
        let entries = list.entries().iter().cloned().map(|entry| match entry {
            Entry::Mailbox(mailbox) => mailbox.into(),
            Entry::Group(group) => group.into(),
        });
        Mailboxes::new_list(entries.collect())
    }
}
