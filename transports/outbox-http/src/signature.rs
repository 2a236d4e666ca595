//! Standard Webhooks signatures: `v1,` and the base64 of HMAC-SHA256 over
//! `{id}.{timestamp}.{body}`; and those of the attributes beside a body, in the same notation.
//!
//! # Source
//! Standard Webhooks specification 1.0, "Signature scheme" and "Verifying signatures". D. J.
//! Bernstein, "Netstrings" (1997).

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// Signatures of one request that the receiver compares: enough for every key of a rotation, few
/// enough to cost nothing.
const MAX_SIGNATURES: usize = 16;

/// A symmetric signing key. Never shown.
///
/// ```
/// # use outbox_http::{Secret, SecretError};
/// let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert!(matches!(Secret::parse("hunter2"), Err(SecretError::Prefix)));
/// # Ok::<(), SecretError>(())
/// ```
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
        let bytes = STANDARD_NO_PAD
            .decode(encoded.trim_end_matches('='))
            .map_err(|_| SecretError::Base64)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|_| SecretError::Length(bytes.len()))
    }

    /// Signs the content and gives the signature as it travels: `v1,` and base64. `timestamp` is in
    /// seconds since 1970.
    ///
    /// ```
    /// # use outbox_http::{Secret, SecretError};
    /// # fn example(secret: &Secret, id: &str, now: u64, body: &[u8]) -> String {
    /// let signature = secret.sign(id, now, body); // for `webhook-signature`
    /// assert!(signature.starts_with("v1,"));
    /// # signature }
    /// ```
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.code(id, &timestamp.to_string(), body)))
    }

    /// Signs the attributes of a request in binary mode and gives the signature as it travels in
    /// `outbox-signature`: `v1,` and base64. `attributes` are names without `ce-` and decoded
    /// values, in any order, with `datacontenttype` where the request has a `Content-Type`. [The
    /// form that is signed](crate#what-the-signatures-cover) begins with id, timestamp and body, so
    /// that the signature fits no other request.
    #[must_use]
    pub fn sign_attributes<'a>(
        &self,
        id: &str,
        timestamp: u64,
        body: &[u8],
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> String {
        let attributes = sorted(attributes);
        format!(
            "v1,{}",
            STANDARD.encode(self.code_of(id, &timestamp.to_string(), body, &attributes))
        )
    }

    fn code(&self, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
        let mut code = self.0.clone();
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            code.update(part);
        }
        code.finalize().into_bytes().into()
    }

    fn code_of(
        &self,
        id: &str,
        timestamp: &str,
        body: &[u8],
        attributes: &[(&str, &str)],
    ) -> [u8; 32] {
        let mut code = self.0.clone();
        code.update(DOMAIN);
        let pairs = attributes.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        for part in [id.as_bytes(), timestamp.as_bytes(), body].into_iter().chain(pairs) {
            code.update(part.len().to_string().as_bytes());
            code.update(b":");
            code.update(part);
            code.update(b",");
        }
        code.finalize().into_bytes().into()
    }
}

fn sorted<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    let mut attributes: Vec<_> = attributes.into_iter().collect();
    attributes.sort_unstable();
    attributes
}

/// The first bytes of the signed form of attributes. No `webhook-id` holds a line end, so that one
/// kind of signature never passes as the other.
const DOMAIN: &[u8] = b"outbox-signature\n";

/// Header of the identity that is signed.
pub(crate) const ID: &str = "webhook-id";
/// Header of the instant that is signed, in seconds since 1970.
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
/// Header of the signatures, one a key, separated by spaces.
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// Header of the signatures of the attributes in headers, one a key, separated by spaces.
pub(crate) const ATTRIBUTES: &str = "outbox-signature";

/// Signs with every key and gives the value of `webhook-signature`; a receiver needs only one of
/// the keys.
pub(crate) fn sign_all(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

/// Signs attributes with every key and gives the value of `outbox-signature`.
pub(crate) fn sign_attributes(
    secrets: &[Secret],
    id: &str,
    timestamp: u64,
    body: &[u8],
    attributes: &[(&str, String)],
) -> String {
    let attributes = || attributes.iter().map(|(name, value)| (*name, value.as_str()));
    let signatures =
        secrets.iter().map(|secret| secret.sign_attributes(id, timestamp, body, attributes()));
    signatures.collect::<Vec<_>>().join(" ")
}

/// Tells whether one of the signatures was made with one of the keys.
pub(crate) fn verify(
    secrets: &[Secret],
    id: &str,
    timestamp: &str,
    body: &[u8],
    signatures: &str,
) -> bool {
    fits(signatures, secrets.iter().map(|secret| secret.code(id, timestamp, body)))
}

/// Tells whether one of the signatures of attributes was made with one of the keys.
pub(crate) fn verify_attributes(
    secrets: &[Secret],
    id: &str,
    timestamp: &str,
    body: &[u8],
    attributes: &[(&str, String)],
    signatures: &str,
) -> bool {
    let attributes = sorted(attributes.iter().map(|(name, value)| (*name, value.as_str())));
    fits(signatures, secrets.iter().map(|secret| secret.code_of(id, timestamp, body, &attributes)))
}

/// Compares every signature with every expected code, over its full length and without an early
/// return on a match (constant time).
fn fits(signatures: &str, expected: impl Iterator<Item = [u8; 32]>) -> bool {
    let given: Vec<Vec<u8>> = signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .take(MAX_SIGNATURES)
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .collect();
    let mut fits = Choice::from(0);
    for expected in expected {
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

    fn named(list: &[(String, String)]) -> Vec<(&str, String)> {
        list.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
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
        fn signed_attributes_fit_in_any_order_and_no_others_do(
            list in vec(("[a-z0-9:,]{0,6}", "[a-z0-9:,é]{0,6}"), 0..6),
            other in vec(("[a-z0-9:,]{0,6}", "[a-z0-9:,é]{0,6}"), 0..6),
            body in vec(any::<u8>(), 0..20),
        ) {
            let (keys, mut list, mut other) = ([secret(1), secret(2)], list, other);
            let signatures = sign_attributes(&keys, "a", 1, &body, &named(&list));
            let fits = |keys: &[Secret], list: &[(String, String)], body: &[u8]| {
                verify_attributes(keys, "a", "1", body, &named(list), &signatures)
            };
            list.reverse();
            prop_assert!(fits(&keys[1..], &list, &body));
            prop_assert!(!fits(&[secret(3)], &list, &body));
            prop_assert!(!fits(&keys, &list, &[&body[..], b"x"].concat()));
            prop_assert!(!verify(&keys, "a", "1", &body, &signatures), "one kind of signature is not the other");
            let same = fits(&keys, &other, &body);
            list.sort_unstable();
            other.sort_unstable();
            prop_assert_eq!(same, list == other);
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
