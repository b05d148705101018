//! What to do about a TLS handshake that failed.

/// The server sent no certificate.
pub(crate) const NO_CERTIFICATE: &str = "The server's administrator must install one.";

/// The server breaks the TLS protocol.
pub(crate) const NOT_TLS: &str = "The server, or a device between, does not keep to TLS. Show this \
    message to the server's administrator.";

/// The server agreed to STARTTLS and sent plaintext.
pub(crate) const PLAINTEXT_AFTER_STARTTLS: &str = "Its TLS is broken, or a device between you and \
    the server interferes. Show this message to the server's administrator.";

/// A server of another protocol answers.
pub(crate) const OTHER_SERVER: &str =
    "Check host and port: a mail server takes TLS from the first byte on port 465.";

/// The server refuses the connection in plaintext.
pub(crate) const REFUSED_IN_PLAINTEXT: &str = "Its reply says why. If it does not, this port may \
    be one for STARTTLS: use smtp:// instead of smtps://.";

/// The first bytes are neither TLS nor those of a known protocol.
pub(crate) const UNKNOWN_SERVER: &str = "Check host and port: TLS from the first byte (smtps://) \
    is spoken on port 465, STARTTLS (smtp://) on port 587.";

/// The server closed the connection when the handshake began.
pub(crate) const CLOSED: &str = "This port may not speak TLS from the first byte: try STARTTLS \
    (smtp:// and port 587). If it should, the server's TLS is not set up, or it does not take \
    connections from here: its log says more.";

/// An LMTP server does not take TLS from the first byte.
pub(crate) const IMPLICIT_LMTP: &str = "Use STARTTLS, which begins in plaintext \
    (Security::Required), or no TLS at a socket of this machine (Security::None): few LMTP servers \
    take TLS from the first byte.";

/// The server closed the connection after it agreed to STARTTLS.
pub(crate) const CLOSED_AFTER_STARTTLS: &str = "The server's TLS is not set up as it should be (a \
    certificate or key that it cannot read, as a rule): its log says more.";

/// The server closed the connection in the middle of the handshake.
pub(crate) const CLOSED_MIDWAY: &str = "The server gives no reason: its log may say more. It may \
    not like what was offered, or a device between cuts TLS off.";

/// The server does not have the key of its certificate.
pub(crate) const WRONG_SIGNATURE: &str = "Do not trust it: another machine may be impersonating \
    the server. If it is your own server, certificate and key do not belong together.";

/// A verifier given by the caller refused the certificate.
pub(crate) const OTHER_VERIFIER: &str =
    "The reason is the verifier's. Show this message to the server's administrator.";

/// The server does not know the name.
pub(crate) const UNKNOWN_NAME: &str = "Connect by the name that the server is set up for, or give \
    that as server name (TlsSettings::server_name, server-name= in the URL).";

/// The server reports an internal error.
pub(crate) const SERVER_FAILED: &str =
    "The server's log says why; its certificate or key is not set up well, as a rule.";

/// Any other alert.
pub(crate) const OTHER_ALERT: &str =
    "The server's log says more. Show this message to its administrator.";

/// The server demands another client certificate, or any.
pub(crate) const CLIENT_CERTIFICATE: &str = "Get a client certificate that the server's \
    administrator accepts, and give it (TlsSettings::client_certificate). If you gave one, look at \
    its dates and its issuer.";

/// No cipher suite, key exchange or signature in common.
pub(crate) const NO_SUITE: &str = "The server allows only what is outdated or unusual: its \
    administrator must enable the usual suites of TLS 1.2 or 1.3 (ECDHE with AES-GCM or ChaCha20).";

/// The server speaks TLS 1.2, which is not allowed here.
pub(crate) const ALLOW_TLS_1_2: &str = "Allow TLS 1.2, too (TlsSettings::min_version, min-tls=1.2 \
    in the URL), or have TLS 1.3 enabled at the server.";

/// The server speaks TLS 1.3, which is not allowed here.
pub(crate) const ALLOW_TLS_1_3: &str = "Allow TLS 1.3, too (TlsSettings::max_version, max-tls=1.3 \
    in the URL), or have TLS 1.2 enabled at the server.";

/// The server speaks no version after TLS 1.1.
pub(crate) const OLD_SERVER: &str = "The server is too old: TLS before 1.2 is broken (RFC 8996) \
    and not spoken here. Its administrator must enable TLS 1.2 or 1.3.";

/// A server on a port for STARTTLS greets in plaintext.
pub(crate) fn use_starttls(host: &str) -> String {
    format!(
        "Use STARTTLS, which begins in plaintext: smtp://{host} instead of smtps://, with the same \
         port."
    )
}
