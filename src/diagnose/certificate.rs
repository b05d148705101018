//! What to do about a certificate of a server that is not accepted.

/// The server sent no certificate.
pub(crate) const NO_CERTIFICATE: &str =
    "Ask the administrator of the server for one that has a certificate.";

/// The certificate was revoked.
pub(crate) const REVOKED: &str = "Do not send anything to it: its key may be in wrong hands. The \
    server's administrator must install a new one.";

/// The certificate of the server is that of an authority.
pub(crate) const AUTHORITY_AS_SERVER: &str = "The server's administrator must have one issued for \
    a server; or, if you know that this is the server's, trust this very certificate: add it \
    (Trust::path, or trust= in the URL).";

/// The issuer of the certificate is not an authority.
pub(crate) const ISSUER_IS_NOT_AUTHORITY: &str =
    "The server's administrator must have its certificate issued anew.";

/// The certificate of the server is not for servers.
pub(crate) const PURPOSE: &str =
    "The server's administrator must have it issued anew, for a TLS server.";

/// An authority above the certificate of the server is not for servers.
pub(crate) const PURPOSE_OF_ISSUER: &str = "The server's administrator must have its certificate \
    issued by another authority, one for TLS servers.";

/// An authority above it has a critical extension that is not supported.
pub(crate) const CRITICAL_EXTENSION_OF_ISSUER: &str = "The server's administrator must have it \
    issued anew, without this extension or with it not marked as critical. Or, if you know that \
    the server's own certificate is the right one, pin its key (Trust::pin, pin= in the URL).";

/// The certificate of the server has a critical extension that is not supported.
pub(crate) const CRITICAL_EXTENSION: &str = "The server's administrator must have it issued anew, \
    without this extension or with it not marked as critical.";

/// The certificate is X.509 version 1 or 2.
pub(crate) const OLD_VERSION: &str = "The server's administrator must have it issued anew, as \
    X.509 version 3 with the server's name.";

/// The chain takes too much work to verify.
pub(crate) const TOO_MUCH_WORK: &str = "The server's administrator must install only the server's \
    own certificate and those of the authorities above it.";

/// Anything else.
pub(crate) const OTHER: &str = "Show this message to the server's administrator.";

/// The RSA key of the server's certificate has an unsupported size.
pub(crate) const SHORT_KEY: &str = "The server's administrator must have it issued anew, for a key \
    of 2048 bits or more (or an ECDSA key).";

/// The RSA key of an authority above it has an unsupported size.
pub(crate) const SHORT_KEY_OF_ISSUER: &str = "What it signed cannot be verified: the server's \
    administrator must have its certificate issued by an authority with a key of 2048 bits or more \
    (or an ECDSA key).";

/// The certificate of the server is signed with an unsupported algorithm.
pub(crate) const OLD_SIGNATURE: &str =
    "The server's administrator must have it issued anew, signed with SHA-256.";

/// An authority above it is signed with an unsupported algorithm.
pub(crate) const OLD_SIGNATURE_OF_ISSUER: &str = "The server's administrator must have its \
    certificate issued by an authority whose own is signed with SHA-256, or install the \
    authority's new one.";

/// An authority above the certificate of the server is faulty.
pub(crate) const REISSUE_ISSUER: &str = "The server's administrator must have its certificate \
    issued by another authority, or get the authority's new one.";

/// An authority has more authorities below it than it allows.
pub(crate) const TOO_MANY_AUTHORITIES: &str = "The server's administrator must have its \
    certificate issued by an authority that may issue it.";

/// The authority may not issue certificates for this name.
pub(crate) const OTHER_AUTHORITY: &str =
    "The server's administrator must have it issued by another authority.";

/// The key of the server is not the pinned one.
pub(crate) const NEW_KEY: &str = "The server has probably got a new key: ask its administrator for \
    its hash, and pin that. If it has not, another machine is impersonating the server.";

/// The certificate is faulty.
pub(crate) const REISSUE: &str = "The server's administrator must have it issued anew.";

/// The certificate has expired.
pub(crate) const EXPIRED: &str = "The server's administrator must install a new one (and reload \
    the server, if there is one already). If the time given as now is wrong, set this machine's \
    clock.";

/// The certificate is not valid yet.
pub(crate) const NOT_YET_VALID: &str = "If the time given as now is wrong, set this machine's \
    clock; else the server's administrator installed the certificate too early.";

/// The certificate is for other names.
pub(crate) const OTHER_NAME: &str = "Connect to a name that it is for; or, if you are sure that \
    this is the server you mean, set that name as the server name (TlsSettings::server_name, or \
    server-name= in the URL).";

/// A signature does not match.
pub(crate) const NEW_AUTHORITY_KEY: &str = "The authority has probably got a new key: get its \
    present certificate and trust that. If it has not, another machine is impersonating the \
    server.";

/// An authority has name constraints of a kind that is not supported.
pub(crate) const UNSUPPORTED_CONSTRAINTS: &str = "Have the server's certificate issued by an \
    authority without such limits. Or, if you know that this certificate is the server's, trust it \
    alone, without the authority (Trust::path, or trust= in the URL), or pin its key (Trust::pin, \
    pin= in the URL).";

/// The certificate is self-signed and not trusted.
pub(crate) fn self_signed(fingerprint: &str) -> String {
    format!(
        "If its SHA-256 fingerprint is the one that the server's administrator names \
         ({fingerprint}), save the certificate as a file and trust that (Trust::path, or trust= \
         in the URL); else this is not your server."
    )
}

/// The authority at the top of the chain is not trusted.
pub(crate) fn private_authority(subject: &str, fingerprint: &str) -> String {
    format!(
        "If {subject} is your own authority, or that of the server's owner, get its certificate \
         from its operator (its SHA-256 fingerprint must be {fingerprint}), save it as a file and \
         trust that (Trust::path, or trust= in the URL)."
    )
}

/// The issuer is missing. The certificate states its URL, as certificates of public authorities do.
pub(crate) fn missing_intermediate(url: &str) -> String {
    format!(
        "The server most likely left out an intermediate certificate: its administrator must \
         install the full chain (the certificate says that the missing one is at {url})."
    )
}

/// The issuer is missing.
pub(crate) fn missing_issuer(issuer: &str) -> String {
    format!(
        "If {issuer} is an authority of your own, get its certificate from its operator, save it \
         as a file and trust that (Trust::path, or trust= in the URL). If it is an intermediate \
         of a public one, the server left it out: its administrator must install the full chain."
    )
}

/// The pin is the hash of the certificate in place of that of its key.
pub(crate) fn certificate_pinned(key: &str) -> String {
    format!(
        "The pin is the hash of the certificate. Pin the hash of its key instead, which is {key}"
    )
}

/// The certificate names no server.
pub(crate) fn no_name(wanted: &str) -> String {
    format!(
        "The server's administrator must have it issued anew, with {wanted} as subject \
         alternative name."
    )
}

/// The server's certificate has to be renewed soon.
pub(crate) const RENEW_SERVER: &str = "Its administrator must renew it, or messages will not be \
    sent after that.";

/// The client certificate has to be renewed soon.
pub(crate) const RENEW_CLIENT: &str = "Have it renewed, and load it again (Client::reload_trust).";

/// An intermediate certificate has to be replaced soon.
pub(crate) const RENEW_INTERMEDIATE: &str = "The server's administrator must install the newer one \
    of its authority, which usually comes with the next certificate, or messages will not be sent \
    after that.";

/// The trust anchor that verified the server has to be replaced soon.
pub(crate) const RENEW_ANCHOR: &str = "Get the authority's new certificate, trust it too \
    (Trust::path, or trust= in the URL), and load it again (Client::reload_trust).";
