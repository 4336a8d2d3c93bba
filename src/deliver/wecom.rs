//! `kind = "wecom"`: a robot of a WeCom (Enterprise WeChat) group. The URL is all there is to it, and a secret.
//!
//! Source: WeCom's documentation of group robots. The answer is HTTP 200 whatever happens; `errcode` tells.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::parts::{Parts, Tone, Unit, fitted, linked};
use super::post::{Meaning, Medium, Reply, door, receiver};
use super::{Carrier, Common, Kind, Receiver};
use crate::document::Table;
use crate::document::schema::{secret, table};
use crate::model::delivery::Owed;

pub(super) const KIND: Kind = Kind {
    name: "wecom",
    about: "a robot of a WeCom (Enterprise WeChat) group",
    carrier: Carrier::Http,
    concurrency: 1,
    text_max: 2_800,
    per_minute: 10,
    example: EXAMPLE,
    read,
    schema,
};

const EXAMPLE: &str = r#"
url = { credential = "wecom-url" }
"#;

/// Bytes of a message's text: some 1365 Chinese characters.
const CONTENT_MAX: usize = 4_096;
/// Bytes of the title in it.
const TITLE_MAX: usize = 480;
/// Bytes of the reason.
const REASON_MAX: usize = 1_200;
/// Bytes of the body.
const TEXT_MAX: usize = 3_300;
/// Bytes of a fact: the long ones leave room for the others.
const FACT_MAX: usize = 300;
/// Twenty messages a minute are taken.
const TOO_FAST: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct WeCom;

fn read(table: &Table<'_>, common: &Common<'_>) -> Option<Arc<dyn Receiver>> {
    receiver(door(table, common, "the robot's address: url = { credential = \"wecom-url\" }"), Some(WeCom))
}

fn schema() -> Value {
    let url = secret("The robot's address with its key, https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=…");
    table("", &["url"], [("url", url)])
}

impl Medium for WeCom {
    fn word(&self, owed: &Owed) -> Vec<u8> {
        let content = Parts::of(owed).within(CONTENT_MAX, |parts| content(parts).into_bytes());
        let content = String::from_utf8_lossy(&content);
        json!({ "msgtype": "markdown", "markdown": { "content": content } }).to_string().into_bytes()
    }

    fn judge(&self, reply: &Reply) -> Meaning {
        if !(200..300).contains(&reply.status) {
            return Meaning::AsStatus;
        }
        match reply.json["errcode"].as_i64() {
            Some(0) => Meaning::Accepted,
            // Busy, or too many at once.
            Some(-1 | 45_033) => Meaning::Later(None),
            Some(45_009) => Meaning::Later(Some(TOO_FAST)),
            Some(_) => Meaning::Refused,
            // Something else answers: not delivered, as far as can be told.
            None => Meaning::Later(None),
        }
    }
}

fn content(parts: &Parts) -> String {
    let Parts { state, reason, body, runbook, .. } = parts;
    let colour = colour(parts.tone);
    let (state, title) = (escaped(state, TITLE_MAX), escaped(parts.behind_state(), TITLE_MAX));
    let mut text = format!("### <font color=\"{colour}\">{state}</font> {title}\n");
    if !reason.is_empty() {
        text += &format!("**{}**\n", escaped(reason, REASON_MAX));
    }
    if !body.is_empty() {
        text += &format!("{}\n", escaped(body, TEXT_MAX));
    }
    for (name, value) in parts.short_facts() {
        text += &format!(">{name}: {}\n", escaped(value, FACT_MAX));
    }
    if let Some(link) = runbook {
        text += &format!("[Runbook]({})\n", linked(link));
    }
    text
}

/// WeCom knows no escape: what it would read as a mark, a mention or a link is written with the wide sister of the character.
fn escaped(text: &str, max: usize) -> String {
    let wide = |c: char| match c {
        '<' => '＜',
        '>' => '＞',
        '[' => '［',
        ']' => '］',
        '*' => '＊',
        '`' => '｀',
        '#' => '＃',
        '&' => '＆',
        '@' => '＠',
        _ => c,
    };
    fitted(text, max, Unit::Bytes, |text| text.chars().map(wide).collect())
}

/// The three colours there are: green, grey and orange.
fn colour(tone: Tone) -> &'static str {
    match tone {
        Tone::Critical | Tone::Error | Tone::Warning => "warning",
        Tone::Info => "comment",
        Tone::Good => "info",
    }
}
