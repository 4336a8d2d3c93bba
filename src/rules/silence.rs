//! Silences: an operator's order, made at the command line, that some findings are not told for a while.

use regex::{Regex, RegexBuilder};

use super::matcher::{FIELDS, Facts, Field};
use super::parse::{PATTERN_BYTES_MAX, PATTERN_MAX};
use crate::document::suggest;
use crate::model::alert::{Severity, Silence};
use crate::model::name::RuleId;
use crate::model::time::Timestamp;

/// A silence, ready to be asked.
#[derive(Debug)]
pub struct Hush {
    silence: Silence,
    matchers: Vec<Matcher>,
}

#[derive(Debug)]
struct Matcher {
    subject: Subject,
    wanted: bool,
    test: Test,
}

#[derive(Clone, Copy, Debug)]
enum Subject {
    Rule,
    Severity,
    Field(Field),
}

#[derive(Debug)]
enum Test {
    Exact(String),
    /// Of the whole value, as Alertmanager has it.
    Regex(Regex),
}

impl Hush {
    /// Makes a silence ready.
    ///
    /// # Errors
    /// A matcher that cannot be read, and what would mend it.
    pub fn new(silence: Silence) -> Result<Self, String> {
        if silence.matchers.is_empty() {
            return Err("a silence needs a matcher: rule=create-failed".into());
        }
        let matchers = silence.matchers.iter().map(|text| matcher(text)).collect::<Result<_, _>>()?;
        Ok(Self { silence, matchers })
    }

    /// Whether it is in force and all of its matchers hold. A field that the job does not have satisfies none.
    pub fn covers(&self, rule: &RuleId, severity: Severity, facts: &Facts<'_>) -> bool {
        self.is_in_force(facts.now) && self.matchers.iter().all(|matcher| matcher.holds(rule, severity, facts))
    }

    /// Whether its time has come and is not over.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.silence.starts_at <= now && now < self.silence.ends_at
    }

    /// The order itself.
    pub fn silence(&self) -> &Silence {
        &self.silence
    }
}

impl Matcher {
    fn holds(&self, rule: &RuleId, severity: Severity, facts: &Facts<'_>) -> bool {
        let text = match self.subject {
            Subject::Rule => rule.as_str().into(),
            Subject::Severity => severity.as_str().into(),
            Subject::Field(field) => match facts.text(field) {
                Some(text) => text,
                None => return false,
            },
        };
        let found = match &self.test {
            Test::Exact(wanted) => text == wanted.as_str(),
            Test::Regex(regex) => regex.is_match(&text),
        };
        found == self.wanted
    }
}

fn matcher(text: &str) -> Result<Matcher, String> {
    const FORMS: &str = "FIELD=VALUE, FIELD!=VALUE, FIELD=~REGEX or FIELD!~REGEX";
    let at = text.find(['=', '!']).ok_or_else(|| format!("`{text}` is no matcher: {FORMS}"))?;
    let (name, rest) = text.split_at(at);
    let operators = [("!=", false, false), ("!~", false, true), ("=~", true, true), ("=", true, false)];
    let (operator, wanted, is_regex) = operators
        .into_iter()
        .find(|(operator, _, _)| rest.starts_with(operator))
        .ok_or_else(|| format!("`{text}` is no matcher: {FORMS}"))?;
    let (name, value) = (name.trim(), rest[operator.len()..].trim());
    let subject = match name {
        "rule" => Subject::Rule,
        "severity" => Subject::Severity,
        name => match FIELDS.iter().find(|(known, _)| *known == name) {
            Some((_, field)) if *field != Field::Age => Subject::Field(*field),
            Some(_) | None => {
                let mut known: Vec<&str> = vec!["rule", "severity"];
                known.extend(FIELDS.iter().map(|(known, _)| *known).filter(|known| *known != "age"));
                return Err(format!("`{name}` is nothing a silence can look at: {}", suggest(name, &known)));
            }
        },
    };
    if value.is_empty() || value.len() > PATTERN_MAX {
        return Err(format!("`{text}`: a value has 1 to {PATTERN_MAX} bytes"));
    }
    let test = match is_regex {
        false => Test::Exact(value.to_owned()),
        true => Test::Regex(
            RegexBuilder::new(&format!("^(?:{value})$"))
                .size_limit(PATTERN_BYTES_MAX)
                .build()
                .map_err(|_| format!("`{value}` is no regular expression (docs.rs/regex)"))?,
        ),
    };
    Ok(Matcher { subject, wanted, test })
}

#[cfg(test)]
mod tests {
    use super::{Facts, Hush, Severity, Silence, Timestamp};
    use crate::model::job::{Job, Status};

    fn hush(matchers: &[&str]) -> Result<Hush, String> {
        Hush::new(Silence {
            id: "s".into(),
            matchers: matchers.iter().map(|text| (*text).to_owned()).collect(),
            starts_at: Timestamp::from_micros(10),
            ends_at: Timestamp::from_micros(20),
            author: "me".into(),
            comment: "work".into(),
        })
    }

    #[test]
    fn a_silence_covers_what_all_its_matchers_say_while_it_is_in_force() {
        let job = Job { resource_name: Some("prod-a".into()), ..Job::bare("a", Status::Failed) };
        let covers = |matchers: &[&str], at: i64| {
            let now = Timestamp::from_micros(at);
            let facts = Facts { job: &job, reason_class: "", source: &"eu".into(), now };
            hush(matchers).unwrap().covers(&"r".into(), Severity::Error, &facts)
        };
        assert!(covers(&["rule=r", "resource_name=~prod-.*", "source!=us", "severity!~info|warning"], 10));
        assert!(!covers(&["rule=r", "resource_name=~prod"], 10), "a pattern is of the whole value");
        assert!(!covers(&["rule=r"], 9) && !covers(&["rule=r"], 20));
        assert!(!covers(&["type!=CreateInstance"], 10), "a field that is missing cannot be told");
    }

    #[test]
    fn what_is_no_matcher_is_refused_with_the_mend() {
        assert!(hush(&[]).unwrap_err().contains("needs a matcher"));
        assert!(hush(&["rules=r"]).unwrap_err().contains("did you mean `rule`?"));
        assert!(hush(&["rule"]).unwrap_err().contains("FIELD=VALUE"));
        assert!(hush(&["rule=~("]).unwrap_err().contains("no regular expression"));
    }
}
