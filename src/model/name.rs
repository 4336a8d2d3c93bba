//! Names and identifiers: one type each, so that a receiver's name is never taken for a rule's.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use data_encoding::{Encoding, Specification};
use sha2::{Digest, Sha256};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )+};
}

names! {
    /// The cloud's identifier of one job.
    JobId,
    /// The operator's name for one polled listing.
    SourceName,
    /// The operator's name for somebody who hears.
    ReceiverName,
    /// The operator's name for an action that a rule's match can ask for.
    FollowUpName,
    /// The stable key of a rule's memory.
    RuleId,
    /// Identifies one observed transition for ever; see [`derive()`].
    TransitionId,
    /// Identifies one rule's finding about one key; see [`derive()`].
    AlertId,
    /// Identifies one delivery on every attempt: `webhook-id`, CloudEvents `id`, e-mail `Message-ID`; see [`derive()`].
    DeliveryId,
}

/// Derives an identifier from what it identifies: `prefix_` and 26 characters of the SHA-256 of `parts`, in base32.
///
/// The same parts give the same identifier after a restart, from a second replica and in a dry run; that is what lets
/// a receiver drop what it has heard already. Every part is hashed with its length in front, so that `["ab", "c"]` and
/// `["a", "bc"]` differ. The alphabet is base32hex in lower case (RFC 4648 §7): no `.`, which Standard Webhooks forbids.
pub fn derive(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut text = base32().encode(&hash.finalize());
    text.truncate(26);
    format!("{prefix}_{text}")
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
    specification.encoding().expect("32 distinct symbols are a valid base32 alphabet")
}

#[cfg(test)]
mod tests {
    use super::derive;

    #[test]
    fn an_identifier_depends_on_every_part_and_on_where_the_parts_end() {
        let id = derive("msg", &["ab", "c"]);
        assert_eq!(id, derive("msg", &["ab", "c"]));
        assert_ne!(id, derive("msg", &["a", "bc"]));
        assert_eq!(id, "msg_c0el8tn2pjv2p1t2nejq68j5is", "an identifier once sent never changes");
    }
}
