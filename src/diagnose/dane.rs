//! What to do about a server that its TLSA records do not verify.

/// All records are unusable, so that nothing is verified. `own` is the record for the server's key.
pub(crate) fn unusable(own: &str) -> String {
    format!("The server's administrator should publish a usable TLSA record, such as {own}")
}

/// No record is of the server or of an authority above it.
pub(crate) fn no_match(own: &str) -> String {
    format!(
        "The server's administrator must publish a TLSA record for the key in use ({own}), and in \
         future that of a new key before the key is installed. If the key was not changed, another \
         machine is impersonating the server."
    )
}

/// The chain up to the authority of a record is not valid.
pub(crate) fn broken_chain(own: &str) -> String {
    format!(
        "The server's administrator must install a valid chain up to the authority of a TLSA \
         record, or publish a record for the server's own key ({own}), for which names, dates and \
         issuers do not matter."
    )
}
