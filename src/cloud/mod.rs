//! What every Huawei Cloud service has in common: where it answers, how a request is authorised, how an error looks.

pub mod error;
pub mod region;

use secrecy::{ExposeSecret as _, SecretString};

use crate::document::{Secrets, Table};

/// How requests are authorised.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// An IAM token, sent as `X-Auth-Token`.
    Token(SecretString),
}

impl Credentials {
    /// Reads `credentials = { kind = "token", token = {…} }`. `None` when something was wrong; the table has been told.
    pub fn read(source: &Table<'_>, secrets: &dyn Secrets) -> Option<Self> {
        const HELP: &str = "credentials = { kind = \"token\", token = { env = \"HW_AUTH_TOKEN\" } }";
        let Some(table) = source.table("credentials") else {
            source.missing("credentials", HELP);
            return None;
        };
        let kind = table.required("kind", HELP)?;
        if kind.value != "token" {
            let known = ["auto", "ak_sk", "password", "metadata"].contains(&kind.value.as_str());
            let message = match known {
                true => format!("credentials of kind `{}` are not available in this version", kind.value),
                false => format!("unknown kind of credentials `{}`", kind.value),
            };
            source.error("credentials", kind.span, message, HELP);
            return None;
        }
        let token = table.value("token");
        if token.is_none() {
            table.missing("token", HELP);
        }
        let token = token?.secret(secrets);
        table.finish();
        let token = token?;
        let text = token.value.expose_secret().trim().to_owned();
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            source.error("secret", token.span, "`token` is empty or holds characters no token has", HELP);
            return None;
        }
        Some(Self::Token(text.into()))
    }

    /// Takes every trace of the credential out of a text that came from elsewhere.
    pub fn redact(&self, text: &str) -> String {
        match self {
            Self::Token(token) => text.replace(token.expose_secret(), "[redacted]"),
        }
    }
}
