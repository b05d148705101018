//! PLAIN (RFC 4616).

use zeroize::Zeroizing;

use crate::secret::Credentials;

/// `authzid NUL authcid NUL passwd`, the first one empty: who logs in acts for himself.
pub(super) fn response(credentials: &Credentials) -> Zeroizing<Vec<u8>> {
    let (user, password) = (credentials.user().as_bytes(), credentials.secret().as_bytes());
    let mut response = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
    response.push(0);
    response.extend_from_slice(user);
    response.push(0);
    response.extend_from_slice(password);
    response
}

/// A server that challenges did not read the initial response, and wants it now.
pub(super) fn respond(credentials: &Credentials, challenges: usize) -> Option<Zeroizing<Vec<u8>>> {
    (challenges == 0).then(|| response(credentials))
}
