//! Oracle's auto-login wallet (`cwallet.sso`): a PKCS#12 store (see [`pkcs12`](super::pkcs12))
//! after a header that contains its password, so that it opens without one.
//!
//! | Bytes | |
//! |---|---|
//! | 3 | `A1 F8 4E` |
//! | 1 | the kind, as a digit of ASCII: `8` is bound to a host and a user (auto-login local) |
//! | 4 | the version, 6 |
//! | 4 | the length of the two parts that follow |
//! | 1 | how the password is hidden: 6 (AES), or an ASCII `5` (DES, older) |
//! | | a key, and the password, encrypted with it |

use aes::Aes128;
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
use des::Des;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::formats::FormatError;
use super::keystore;
use super::pkcs12::{OpenError, Store};

/// The password is encrypted with this IV and the key before it.
const IV: [u8; 16] = [
    0xC0, 0x34, 0xD8, 0x31, 0x1C, 0x02, 0xCE, 0xF8, 0x51, 0xF0, 0x14, 0x4B, 0x81, 0xED, 0x4B, 0xF2,
];

/// Opens a wallet as this process on this host, and passes its store to `take`.
pub(super) fn with_store<T>(
    bytes: &[u8],
    take: impl FnOnce(Store<'_>) -> Result<T, FormatError>,
) -> Result<T, FormatError> {
    let wallet = Wallet::read(bytes)?;
    let owner = Owner::this_process();
    let password = wallet.password(&owner);
    let store = Store::open(wallet.store, &password).map_err(|error| match error {
        OpenError::WrongPassword if wallet.is_local => bound_elsewhere(&owner),
        OpenError::WrongPassword | OpenError::Malformed(_) => damaged(),
        error => keystore::explain(error, true),
    })?;
    take(store)
}

struct Wallet<'a> {
    /// Bound to the host and the user that created it.
    is_local: bool,
    secret: Zeroizing<Vec<u8>>,
    store: &'a [u8],
}

impl<'a> Wallet<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (header, rest) = bytes.split_at_checked(12).ok_or_else(damaged)?;
        let kind = header[3];
        if !(b'5'..=b'8').contains(&kind) {
            return Err(FormatError::new(
                format!(
                    "is an auto-login wallet of Oracle (cwallet.sso) of a kind that is not known \
                        ({kind:02X})"
                ),
                ALTERNATIVES,
            ));
        }
        let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let length = usize::try_from(length).map_err(|_| damaged())?;
        let (secret, store) = rest.split_at_checked(length).ok_or_else(damaged)?;
        let secret = match secret.split_first() {
            Some((6, rest)) => aes(rest),
            Some((b'5', rest)) => des(rest),
            Some((way, _)) => {
                return Err(FormatError::new(
                    format!(
                        "is an auto-login wallet of Oracle (cwallet.sso) whose password is hidden \
                            in a way that is \
                         not known ({way:02X})"
                    ),
                    ALTERNATIVES,
                ));
            }
            None => None,
        };
        Ok(Wallet {
            is_local: kind == b'8',
            secret: secret.ok_or_else(damaged)?,
            store,
        })
    }

    /// The password of the store. Each byte is a character.
    fn password(&self, owner: &Owner) -> Zeroizing<String> {
        let text = |bytes: &[u8]| {
            // Allocated once: growing would leave copies of the password in memory.
            let mut text = Zeroizing::new(String::with_capacity(2 * bytes.len()));
            text.extend(bytes.iter().copied().map(char::from));
            text
        };
        if !self.is_local {
            return text(&self.secret);
        }
        let key = format!("{}{}", owner.host, owner.user);
        let mut mac =
            Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("a key of any length will do");
        mac.update(&self.secret);
        let bytes = mac.finalize().into_bytes();
        let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(
            bytes
                .iter()
                .take(16)
                .map(|byte| byte % 128 % 127 + 1)
                .collect(),
        );
        text(&bytes)
    }
}

/// Decrypts a key of 16 bytes and the blocks after it.
fn aes(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (key, encrypted) = bytes.split_at_checked(16)?;
    let cipher = cbc::Decryptor::<Aes128>::new_from_slices(key, &IV).ok()?;
    cipher
        .decrypt_padded_vec::<NoPadding>(encrypted)
        .ok()
        .filter(|secret| !secret.is_empty())
        .map(Zeroizing::new)
}

/// Decrypts a key of 8 bytes and the rest, both in hexadecimal digits.
fn des(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (key, encrypted) = digits.split_at_checked(16)?;
    let cipher = cbc::Decryptor::<Des>::new_from_slices(&unhex(key)?, &[0; 8]).ok()?;
    cipher
        .decrypt_padded_vec::<Pkcs7>(&unhex(encrypted)?)
        .ok()
        .map(Zeroizing::new)
}

fn unhex(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| {
        let value = |digit: u8| char::from(digit).to_digit(16);
        u8::try_from(value(*high)? * 16 + value(*low)?).ok()
    };
    rest.is_empty()
        .then(|| pairs.iter().map(byte).collect::<Option<_>>())?
        .map(Zeroizing::new)
}

/// The host and user that a local wallet is bound to.
struct Owner {
    /// Without the domain.
    host: String,
    user: String,
}

impl Owner {
    fn this_process() -> Self {
        let host = whoami::hostname().unwrap_or_default();
        let host = host.split('.').next().unwrap_or_default().to_owned();
        Owner {
            host,
            user: whoami::username().unwrap_or_default(),
        }
    }
}

const ALTERNATIVES: &str = "Use the ewallet.p12 beside it with its password, or export the \
    certificates: orapki wallet export.";

fn damaged() -> FormatError {
    FormatError::new(
        "is an auto-login wallet of Oracle (cwallet.sso) that is damaged, or not complete",
        ALTERNATIVES,
    )
}

fn bound_elsewhere(owner: &Owner) -> FormatError {
    let Owner { host, user } = owner;
    FormatError::new(
        format!(
            "is an auto-login local wallet of Oracle (cwallet.sso), which opens only on the host \
                and for the user that \
             made it; it does not open on this host, {host:?}, for this user, {user:?}"
        ),
        "Run this program there and as that user; or make a wallet that opens anywhere (orapki \
            wallet create -wallet FOLDER \
         -auto_login); or use the ewallet.p12 beside it with its password.",
    )
}
