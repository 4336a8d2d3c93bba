//! How webhooks are signed. Standard Webhooks 1.0.0: HMAC-SHA256 over `id.timestamp.body`, one `v1,…` entry for each secret.
//! GitHub's way, which many receivers verify: HMAC-SHA256 over the body alone, in hexadecimal.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use data_encoding::HEXLOWER;
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
    let begin = format!("{id}.{seconds}.");
    let entry = |key: &Key| format!("v1,{}", STANDARD.encode(mac(key.0.expose_secret(), &[begin.as_bytes(), body])));
    keys.iter().map(entry).collect::<Vec<_>>().join(" ")
}

/// The value of `X-Hub-Signature-256`. The key is the secret's text as it stands. No time is in it, so it keeps nobody from
/// sending the message again.
pub(super) fn hub_signature(secret: &SecretString, body: &[u8]) -> String {
    format!("sha256={}", HEXLOWER.encode(&mac(secret.expose_secret().as_bytes(), &[body])))
}

fn mac(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    message.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::{Key, hub_signature, signature};
    use secrecy::SecretString;
    use serde_json::Value;

    /// The vectors of Standard Webhooks: what is signed right, and what a verifier must make of changes to it.
    fn standard() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/standard-webhooks.json")).unwrap()
    }

    fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
        vector[name].as_str().unwrap_or_else(|| panic!("no {name} in {vector}"))
    }

    fn keys(vector: &Value) -> Vec<Key> {
        let key = |secret: &Value| Key::read(&SecretString::from(secret.as_str().unwrap())).unwrap();
        vector["secrets"].as_array().unwrap().iter().map(key).collect()
    }

    fn signed(vector: &Value) -> String {
        let seconds = text(vector, "webhook_timestamp").parse().unwrap();
        signature(&keys(vector), text(vector, "webhook_id"), seconds, text(vector, "body").as_bytes())
    }

    #[test]
    fn every_published_vector_is_signed_byte_for_byte() {
        let vectors = standard();
        let vectors = vectors["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 6);
        for vector in vectors {
            assert_eq!(signed(vector), text(vector, "webhook_signature_header"), "{}", text(vector, "name"));
        }
    }

    /// Whether a receiver takes the message at this time: by any entry of a version that it knows, from any of its keys.
    fn verifies(message: &Value, now: i64, tolerance: i64) -> bool {
        let seconds: i64 = text(message, "webhook_timestamp").parse().unwrap();
        let entries: Vec<&str> = text(message, "webhook_signature_header").split(' ').collect();
        let good = signed(message).split(' ').any(|entry| entries.contains(&entry));
        good && (now - seconds).abs() <= tolerance
    }

    #[test]
    fn a_message_that_was_changed_or_kept_too_long_does_not_verify() {
        let vectors = standard();
        let find = |name: &str| vectors["vectors"].as_array().unwrap().iter().find(|vector| vector["name"] == *name);
        let cases = vectors["negative"].as_array().unwrap();
        assert_eq!(cases.len(), 7);
        for case in cases {
            let mut message = find(text(case, "base")).unwrap().clone();
            // What the signer made stands in it, until the case says otherwise.
            message["webhook_signature_header"] = signed(&message).into();
            let sent: i64 = text(&message, "webhook_timestamp").parse().unwrap();
            message.as_object_mut().unwrap().extend(case.as_object().unwrap().clone());
            let now = case["verifier_clock"].as_i64().unwrap_or(sent);
            let taken = verifies(&message, now, case["tolerance_s"].as_i64().unwrap_or(300));
            assert_eq!(taken, !case["must_fail"].as_bool().unwrap(), "{}", text(case, "name"));
        }
    }

    #[test]
    fn whoever_holds_either_key_of_a_rotation_takes_the_message() {
        let vectors = standard();
        let both =
            vectors["vectors"].as_array().unwrap().iter().find(|vector| vector["name"] == "rotation-two-secrets");
        let both = both.unwrap();
        for secret in both["secrets"].as_array().unwrap() {
            let mut message = both.clone();
            message["webhook_signature_header"] = signed(both).into();
            message["secrets"] = Value::Array(vec![secret.clone()]);
            assert!(verifies(&message, 1_795_421_732, 300), "{secret}");
        }
    }

    #[test]
    fn every_vector_of_a_body_is_signed_byte_for_byte() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/fixtures/webhook-headers.json")).unwrap();
        let vectors = vectors["hmac_sha256_hex"]["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 4);
        for vector in vectors {
            let signed = hub_signature(&SecretString::from(text(vector, "secret")), text(vector, "body").as_bytes());
            assert_eq!(signed, text(vector, "value"), "{}", text(vector, "name"));
        }
    }

    #[test]
    fn a_secret_of_the_wrong_length_or_alphabet_is_refused() {
        for secret in ["whsec_", "whsec_AAECAwQF", "whsec_***"] {
            assert!(Key::read(&SecretString::from(secret)).is_err(), "{secret}");
        }
    }
}
