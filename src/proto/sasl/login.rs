//! LOGIN, which no RFC describes: the user's name, then the password, whatever the prompts say.

use zeroize::Zeroizing;

use crate::secret::Credentials;

/// Prompts are in any language, empty, or not even base64; only their order counts.
pub(super) fn respond(credentials: &Credentials, challenges: usize) -> Option<Zeroizing<Vec<u8>>> {
    let response = match challenges {
        0 => credentials.user(),
        1 => credentials.secret(),
        _ => return None,
    };
    Some(Zeroizing::new(response.as_bytes().to_vec()))
}
