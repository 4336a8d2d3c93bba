//! A proxy that requests go through because the configuration says so: its URL taken apart, so that what is secret in it
//! travels as a header alone and is in nothing that prints.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

/// What a proxy's URL looks like.
const FORM: &str = "\"http://host:port\" or \"https://host:port\"";

/// A proxy. It may be anywhere: only the operator's configuration names it.
#[derive(Clone)]
pub struct Proxy {
    /// Without user and password.
    url: Url,
    shown: String,
    auth: Option<HeaderValue>,
    /// Every form in which the user and the password may come back.
    hidden: Vec<SecretString>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.shown).finish()
    }
}

impl fmt::Display for Proxy {
    /// Host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Proxy {
    /// Reads `http://user:password@host:port`.
    ///
    /// # Errors
    /// What is wrong, and what would mend it; without a word of what was read, which may be a secret.
    pub fn read(text: &str) -> Result<Self, (String, String)> {
        let wrong = |what: String| Err((what, FORM.to_owned()));
        let mut url = match Url::parse(text.trim()) {
            Ok(url) => url,
            Err(error) => return wrong(format!("`proxy` is not a URL: {error}")),
        };
        match url.scheme() {
            "http" | "https" => {}
            // Any other scheme may be a user's name in front of a colon.
            scheme @ ("socks" | "socks4" | "socks4a" | "socks5" | "socks5h") => {
                let help = format!("{FORM}: a SOCKS server needs an HTTP proxy before it");
                return Err((format!("`proxy` is {scheme}, and only HTTP proxies are spoken to"), help));
            }
            _ => return wrong("`proxy` begins with neither http:// nor https://".into()),
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return wrong("`proxy` has more than a host and a port".into());
        }
        // What the library cannot read as a proxy, it passes over in silence.
        let host = url.host_str().unwrap_or_default().to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !host.starts_with('[') && !host.chars().all(plain) {
            return wrong("the host in `proxy` is no name and no address".into());
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if port == 0 {
            return wrong("the port in `proxy` cannot be 0".into());
        }
        let raw = [url.username(), url.password().unwrap_or_default()].map(ToOwned::to_owned);
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return wrong("`proxy` has no host".into());
        }
        let (auth, hidden) = credentials(&raw);
        Ok(Self { url, shown: format!("{host}:{port}"), auth, hidden })
    }

    /// Whether it is on this machine, and what is a loopback address to it is one here.
    fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// Whether requests for this can go through it.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn carries(&self, url: &Url) -> Result<(), String> {
        // What is loopback to it is its own machine.
        if url.scheme() == "http" && is_loopback(url) && !self.is_loopback() {
            return Err("a loopback address is not this machine's to a proxy on another one".into());
        }
        // The library takes the brackets for a part of the name in the certificate.
        if url.scheme() == "https" && url.host_str().is_some_and(|host| host.starts_with('[')) {
            return Err("the HTTP library makes no tunnel to an IPv6 address: name the host".into());
        }
        Ok(())
    }

    /// What tells it from others: holds its secret, and is only to be hashed.
    pub fn identity(&self) -> SecretString {
        let auth = self.auth.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        format!("{} {}", self.url, String::from_utf8_lossy(auth)).into()
    }

    /// What nobody may read, even if the proxy repeats it; the longest first.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.hidden.iter().map(|secret| secret.expose_secret())
    }

    /// As the HTTP library knows it, for all requests.
    pub(super) fn rule(&self) -> reqwest::Result<reqwest::Proxy> {
        let rule = reqwest::Proxy::all(self.url.clone())?;
        Ok(match &self.auth {
            Some(auth) => rule.custom_http_auth(auth.clone()),
            None => rule,
        })
    }

    /// Why it let nothing pass when it answered 407.
    pub(super) fn unwelcome(&self) -> String {
        match self.auth {
            Some(_) => {
                format!("the proxy {self} does not accept the user and the password in `proxy` (407): correct them")
            }
            None => format!(
                "the proxy {self} wants a user and a password (407): put http://user:password@host:port where `proxy` is read from, as a secret"
            ),
        }
    }
}

/// Whether a URL leads to this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The header, and what of it is not to be shown. A user alone is often a key.
fn credentials(raw: &[String; 2]) -> (Option<HeaderValue>, Vec<SecretString>) {
    if raw.iter().all(String::is_empty) {
        return (None, Vec::new());
    }
    let [user, password] = raw.each_ref().map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
    let code = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let mut auth = HeaderValue::try_from(format!("Basic {code}")).expect("base64 can stand in a header");
    auth.set_sensitive(true);
    let mut hidden: Vec<String> = raw.iter().cloned().chain([user, password, code]).collect();
    // Too short to be a secret, and anywhere in a text.
    hidden.retain(|text| text.len() > 1);
    hidden.sort_by(|a, b| (b.len(), a).cmp(&(a.len(), b)));
    hidden.dedup();
    (Some(auth), hidden.into_iter().map(SecretString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::Proxy;

    #[test]
    fn what_is_no_http_proxy_is_refused_without_a_word_of_it() {
        for (text, words) in [
            ("", "is not a URL"),
            ("canary", "is not a URL"),
            ("http://canary:canary@", "is not a URL"),
            ("http://canary:canary@host:canary", "is not a URL"),
            ("canary:canary@host:3128", "begins with neither http:// nor https://"),
            ("canary.example:3128", "begins with neither http:// nor https://"),
            ("ftp://canary@host", "begins with neither http:// nor https://"),
            ("socks5://canary:canary@host:1080", "is socks5, and only HTTP proxies"),
            ("socks5h://host:1080", "is socks5h, and only HTTP proxies"),
            ("http://host:0", "cannot be 0"),
            ("http://host:3128/canary", "more than a host and a port"),
            ("http://host:3128?canary", "more than a host and a port"),
            ("http://host:3128#canary", "more than a host and a port"),
            ("http://canary{}:3128", "no name and no address"),
            ("http://canary`:3128", "no name and no address"),
        ] {
            let (message, help) = Proxy::read(text).expect_err(text);
            assert!(message.contains(words) && help.contains("http://host:port"), "{text}: {message} ({help})");
            assert!(!message.contains("canary"), "{text}: {message}");
        }
    }

    #[test]
    fn what_can_be_a_proxy_is_one_to_the_library_too() {
        for (text, shown) in [
            ("http://proxy.example:3128", "proxy.example:3128"),
            ("https://proxy.example", "proxy.example:443"),
            ("http://pröxy.example/", "xn--prxy-6qa.example:80"),
            ("http://127.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://my_proxy:1", "my_proxy:1"),
        ] {
            let proxy = Proxy::read(text).expect(text);
            assert_eq!(proxy.to_string(), shown);
            assert!(proxy.rule().is_ok(), "{text}");
        }
    }

    #[test]
    fn user_and_password_are_a_header_and_are_printed_nowhere() {
        let proxy = Proxy::read("http://wat%63her:p%40ss%3Aword@proxy.example:3128").unwrap();
        // watcher:p@ss:word
        assert_eq!(proxy.auth.as_ref().unwrap(), "Basic d2F0Y2hlcjpwQHNzOndvcmQ=");
        let printed = format!("{proxy:?} {proxy} {:?} {}", proxy.rule(), proxy.unwelcome());
        for secret in ["watcher", "wat%63her", "p@ss", "p%40ss", "d2F0Y2hlcjpwQHNzOndvcmQ="] {
            assert!(!printed.contains(secret), "{printed}");
            assert!(proxy.secrets().any(|hidden| hidden.starts_with(secret)), "{secret}");
        }
        let other = Proxy::read("http://proxy.example:3128").unwrap();
        assert_eq!((other.auth.is_none(), other.secrets().count()), (true, 0));
    }
}
