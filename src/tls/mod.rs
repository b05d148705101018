//! TLS: the policy, trust, what was negotiated, what went wrong.

/// What protected a connection.
#[derive(Clone, Debug)]
pub struct TlsInfo {}
