//! SDK-HMAC-SHA256: how a request proves that it comes from the holder of an access key.
//!
//! After the API Request Signing Guide (api-sign-algorithm-002, -003) and the official SDKs; the vectors in
//! `tests/fixtures/signing-vectors.json` were made with the unmodified Python SDK. Unlike AWS's scheme there is no key
//! derivation, no scope and no region: the signature is an HMAC with the secret key itself.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::model::time::Timestamp;

/// The algorithm's name in the string to sign and in the `Authorization` header.
pub const ALGORITHM: &str = "SDK-HMAC-SHA256";
/// The header with the time of signing; the gateway accepts 15 minutes either way.
pub const DATE: &str = "x-sdk-date";

/// RFC 3986's unreserved characters stay; everything else is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An access key. Printing it shows the public half.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: SecretString,
    /// What makes a temporary one valid; sent as `X-Security-Token`.
    pub security_token: Option<SecretString>,
}

/// A request as far as a signature covers it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// In any case.
    pub method: &'a str,
    /// With the port, if it stands in the URL.
    pub host: &'a str,
    /// As it stands on the wire.
    pub path: &'a str,
    /// Names and values, decoded, in any order.
    pub query: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// Headers to be signed besides `Host`; names with `_` are left out, as the official SDKs do.
    pub headers: &'a [(&'a str, &'a str)],
    /// The exact bytes that are sent.
    pub body: &'a [u8],
    /// When it is signed; the value of [`DATE`], which must be among the headers.
    pub date: &'a str,
}

/// A signature and the texts it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The request in the form that is hashed.
    pub canonical_request: String,
    /// What the HMAC is taken of.
    pub string_to_sign: String,
    /// The value of the `Authorization` header.
    pub authorization: String,
}

/// A time in the form of [`DATE`]: `20240115T080910Z`.
pub fn date(at: Timestamp) -> String {
    let text = Timestamp::from_micros(at.seconds() * 1_000_000).to_string();
    text.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// Signs a request.
pub fn sign(key: &AccessKey, request: &Request<'_>) -> Signed {
    let mut headers: Vec<(String, &str)> = request
        .headers
        .iter()
        .filter(|(name, _)| !name.contains('_'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    if !headers.iter().any(|(name, _)| name == "host") {
        headers.push(("host".into(), request.host));
    }
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical_request = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method.to_ascii_uppercase(),
        canonical_path(request.path),
        canonical_query(request.query),
        hex(&Sha256::digest(request.body)),
    );
    let string_to_sign = format!("{ALGORITHM}\n{}\n{}", request.date, hex(&Sha256::digest(&canonical_request)));
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.secret.expose_secret().as_bytes()).expect("HMAC takes keys of every length");
    mac.update(string_to_sign.as_bytes());
    let signature = hex(&mac.finalize().into_bytes());
    let authorization = format!("{ALGORITHM} Access={}, SignedHeaders={names}, Signature={signature}", key.id);
    Signed { canonical_request, string_to_sign, authorization }
}

/// Decoded once, encoded segment by segment, with a slash at the end.
fn canonical_path(path: &str) -> String {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let segments: Vec<String> = decoded.split('/').map(encode).collect();
    let mut path = segments.join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// Sorted by name, then by value; also the form in which the query is sent.
pub fn canonical_query(query: &[(Cow<'_, str>, Cow<'_, str>)]) -> String {
    let mut pairs: Vec<_> = query.iter().collect();
    pairs.sort();
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::{AccessKey, Cow, Request, Timestamp, canonical_path, canonical_query, date, sign};
    use serde_json::Value;

    fn text<'a>(value: &'a Value, name: &str) -> &'a str {
        value[name].as_str().unwrap_or_default()
    }

    #[test]
    fn the_official_sdks_vectors_hold_byte_for_byte() {
        let file: Value = serde_json::from_str(include_str!("../../tests/fixtures/signing-vectors.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 12);
        for vector in vectors {
            let (given, request, expected) = (&vector["credentials"], &vector["request"], &vector["expected"]);
            let token = given["security_token"].as_str();
            let key = AccessKey {
                id: text(given, "ak").into(),
                secret: text(given, "sk").into(),
                security_token: token.map(Into::into),
            };
            let pair = |pair: &Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned());
            let list = |name: &str| request[name].as_array().unwrap().iter().map(pair).collect::<Vec<_>>();
            let mut headers = list("headers");
            // The contract of the vectors: these are signed too where the credential has them.
            for (name, value) in
                [("X-Project-Id", "project_id"), ("X-Domain-Id", "domain_id"), ("X-Security-Token", "security_token")]
            {
                headers.extend(given[value].as_str().map(|value| (name.to_owned(), value.to_owned())));
            }
            let query: Vec<_> = list("query").into_iter().map(|(n, v)| (Cow::Owned(n), Cow::Owned(v))).collect();
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert!(matches!(request["body_encoding"].as_str(), None | Some("utf8")), "the twelve have text bodies");
            let signed = sign(
                &key,
                &Request {
                    method: text(request, "method"),
                    host: text(request, "host"),
                    path: text(request, "path"),
                    query: &query,
                    headers: &headers,
                    body: text(request, "body").as_bytes(),
                    date: "20240115T080910Z",
                },
            );
            let id = text(vector, "id");
            assert_eq!(canonical_path(text(request, "path")), text(expected, "canonical_uri"), "{id}");
            assert_eq!(canonical_query(&query), text(expected, "canonical_query"), "{id}");
            assert_eq!(signed.canonical_request, text(expected, "canonical_request"), "{id}");
            assert_eq!(signed.string_to_sign, text(expected, "string_to_sign"), "{id}");
            assert_eq!(signed.authorization, text(expected, "authorization"), "{id}");
        }
    }

    #[test]
    fn what_smn_and_functiongraph_are_asked_is_signed_byte_for_byte() {
        let file: Value = serde_json::from_str(include_str!("../../tests/fixtures/service-signing.json")).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 4);
        for vector in vectors {
            let key =
                AccessKey { id: text(vector, "ak").into(), secret: text(vector, "sk").into(), security_token: None };
            let headers = vector["headers"].as_object().unwrap().iter();
            let headers: Vec<(&str, &str)> = headers.map(|(n, v)| (n.as_str(), v.as_str().unwrap())).collect();
            let pairs = vector["query"].as_array().unwrap().iter();
            let query: Vec<_> =
                pairs.map(|p| (Cow::from(p[0].as_str().unwrap()), Cow::from(p[1].as_str().unwrap()))).collect();
            let signed = sign(
                &key,
                &Request {
                    method: text(vector, "method"),
                    host: text(vector, "host"),
                    path: text(vector, "path"),
                    query: &query,
                    headers: &headers,
                    body: text(vector, "body").as_bytes(),
                    date: "20261123T081530Z",
                },
            );
            let name = text(vector, "name");
            assert_eq!(signed.canonical_request, text(vector, "canonical_request"), "{name}");
            assert_eq!(signed.string_to_sign, text(vector, "string_to_sign"), "{name}");
            assert_eq!(signed.authorization, text(vector, "authorization"), "{name}");
        }
    }

    #[test]
    fn a_date_is_written_without_separators_and_without_a_fraction() {
        let at = Timestamp::parse("2024-01-15T08:09:10.999Z").unwrap();
        assert_eq!(date(at), "20240115T080910Z");
    }
}
