//! Standard Webhooks signatures: `v1,` and the base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! # Source
//! Standard Webhooks specification 1.0, "Signature scheme" and "Verifying signatures".

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// Signatures of one request that are looked at: enough for every key of a rotation, few enough to cost nothing.
const MAX_SIGNATURES: usize = 16;

/// A symmetric signing key. Never shown.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

/// A text that is no signing key. The text is not quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It does not begin with `whsec_`.
    #[error("a secret begins with whsec_")]
    Prefix,
    /// The rest is no base64.
    #[error("after whsec_ a secret is base64")]
    Base64,
    /// It is shorter or longer than the standard allows.
    #[error("a secret has 24 to 64 bytes before base64, not {0}")]
    Length(usize),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads a secret in the form `whsec_` and base64 of 24 to 64 bytes.
    ///
    /// # Errors
    /// [`SecretError`], which says what is wrong without quoting the text.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.trim().strip_prefix("whsec_").ok_or(SecretError::Prefix)?;
        let bytes = STANDARD_NO_PAD.decode(encoded.trim_end_matches('=')).map_err(|_| SecretError::Base64)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|_| SecretError::Length(bytes.len()))
    }

    /// Signs the content and gives the signature as it travels: `v1,` and base64. `timestamp` is in seconds since 1970.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.code(id, &timestamp.to_string(), body)))
    }

    fn code(&self, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
        let mut code = self.0.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            code.update(part);
        }
        code.finalize().into_bytes().into()
    }
}

/// Header of the identity that is signed.
pub(crate) const ID: &str = "webhook-id";
/// Header of the instant that is signed, in seconds since 1970.
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
/// Header of the signatures, one a key, separated by spaces.
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// Signs with every key and gives the value of `webhook-signature`, so that a receiver may know any one of them.
pub(crate) fn sign_all(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

/// Tells whether one of the signatures was made with one of the keys.
///
/// Every signature is compared with every key over its full length; nothing ends early where it fits.
pub(crate) fn verify(secrets: &[Secret], id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
    let given: Vec<Vec<u8>> = signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .take(MAX_SIGNATURES)
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .collect();
    let mut fits = Choice::from(0);
    for secret in secrets {
        let expected = secret.code(id, timestamp, body);
        for signature in &given {
            fits |= expected.ct_eq(signature.as_slice());
        }
    }
    fits.into()
}

/// Reads a timestamp of plain digits; `None` for anything else.
pub(crate) fn seconds(timestamp: &str) -> Option<u64> {
    if timestamp.bytes().all(|b| b.is_ascii_digit()) { timestamp.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn secret(byte: u8) -> Secret {
        Secret::parse(&format!("whsec_{}", STANDARD.encode([byte; 32]))).expect("32 bytes")
    }

    proptest! {
        #[test]
        fn what_is_signed_fits_and_nothing_else_does(
            id in "[a-z0-9-]{1,20}", timestamp in any::<u64>(), body in vec(any::<u8>(), 0..80), at in any::<prop::sample::Index>(), bit in 0..8,
        ) {
            let (keys, text) = ([secret(1), secret(2)], timestamp.to_string());
            let signatures = sign_all(&keys, &id, timestamp, &body);
            prop_assert!(verify(&keys[1..], &id, &text, &body, &signatures));
            prop_assert!(!verify(&[secret(3)], &id, &text, &body, &signatures));
            prop_assert!(!verify(&[], &id, &text, &body, &signatures));
            let mut spoiled = format!("{id}.{text}.").into_bytes();
            spoiled.extend_from_slice(&body);
            let at = at.index(spoiled.len());
            spoiled[at] ^= 1u8 << bit;
            let mut parts = spoiled.splitn(3, |&b| b == b'.');
            let (other_id, other_text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if let (Ok(other_id), Ok(other_text)) = (std::str::from_utf8(other_id), std::str::from_utf8(other_text)) {
                prop_assert!(!verify(&keys, other_id, other_text, parts.next().unwrap_or_default(), &signatures));
            }
        }

        #[test]
        fn one_changed_bit_of_a_signature_is_noticed(at in 0usize..32, bit in 0..8) {
            let key = [secret(1)];
            let mut code = key[0].code("a", "1", b"body");
            let written = |code: &[u8]| format!("v1,{}", STANDARD.encode(code));
            prop_assert!(verify(&key, "a", "1", b"body", &written(&code)));
            code[at] ^= 1u8 << bit;
            prop_assert!(!verify(&key, "a", "1", b"body", &written(&code)));
            prop_assert!(!verify(&key, "a", "1", b"body", &written(&code[..at])));
        }

        #[test]
        fn any_text_is_a_secret_or_an_error_that_does_not_quote_it(text in "(whsec_)?[A-Za-z0-9+/=]{0,100}|\\PC{0,40}") {
            if let Err(error) = Secret::parse(&text) {
                prop_assert!(text.len() < 8 || !error.to_string().contains(&text));
            }
        }

        #[test]
        fn any_signatures_and_timestamps_are_read_without_trouble(text in any::<String>()) {
            prop_assert!(!verify(&[secret(1)], "a", "1", b"body", &text));
            prop_assert!(seconds(&text).is_none_or(|n| text.trim_start_matches('0') == n.to_string().trim_start_matches('0')));
        }
    }
}
