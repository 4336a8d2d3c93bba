//! Standard Webhooks 1.0.0 signatures: HMAC-SHA256 over `id.timestamp.body`, one `v1,…` entry for each secret.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::Sha256;

/// Secrets are written with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The convention's bounds for a key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A signing key.
#[derive(Debug)]
pub(super) struct Key(SecretBox<Vec<u8>>);

impl Key {
    /// Reads `whsec_` and the base64 of 24 to 64 bytes; the prefix and the padding may be missing.
    pub(super) fn read(secret: &SecretString) -> Result<Self, &'static str> {
        let text = secret.expose_secret().trim();
        let text = text.strip_prefix("whsec_").unwrap_or(text);
        let bytes = LENIENT.decode(text).map_err(|_| "the secret is not base64")?;
        if KEY_BYTES.contains(&bytes.len()) {
            Ok(Self(SecretBox::new(Box::new(bytes))))
        } else {
            Err("the secret must be 24 to 64 bytes in base64")
        }
    }
}

/// The value of `webhook-signature`: an entry for each key, so that a secret can be rotated without losing a message.
pub(super) fn signature(keys: &[Key], id: &str, seconds: i64, body: &[u8]) -> String {
    let entry = |key: &Key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.0.expose_secret()).expect("HMAC takes keys of every length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.iter().map(entry).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Key, signature};
    use secrecy::SecretString;
    use serde_json::Value;

    #[test]
    fn every_published_vector_is_signed_byte_for_byte() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/fixtures/standard-webhooks.json")).unwrap();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 6);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let secrets = vector["secrets"].as_array().unwrap();
            let key = |secret: &Value| Key::read(&SecretString::from(secret.as_str().unwrap())).unwrap();
            let keys: Vec<Key> = secrets.iter().map(key).collect();
            let seconds = text("webhook_timestamp").parse().unwrap();
            let signed = signature(&keys, text("webhook_id"), seconds, text("body").as_bytes());
            assert_eq!(signed, text("webhook_signature_header"), "{}", text("name"));
        }
    }

    #[test]
    fn a_secret_of_the_wrong_length_or_alphabet_is_refused() {
        for secret in ["whsec_", "whsec_AAECAwQF", "whsec_***"] {
            assert!(Key::read(&SecretString::from(secret)).is_err(), "{secret}");
        }
    }
}
