//! The two forms of text that Prometheus reads, and which of them a request wants.
//!
//! The library writes OpenMetrics alone. The older form (0.0.4) differs in what is needed here in two things: a counter is
//! described under its whole name, and there is no last line.

use super::catalogue::{CATALOGUE, Kind};

/// A form of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Version 1.0.0.
    OpenMetrics,
    /// Version 0.0.4: what whoever does not ask gets.
    Plain,
}

impl Form {
    /// What an `Accept` header wants. Of equals, OpenMetrics.
    pub(super) fn wanted(accept: Option<&str>) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let kind = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0_f32, None);
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.trim().parse().unwrap_or(0.0),
                    Some(("version", value)) => version = Some(value.trim_matches('"').to_owned()),
                    Some(_) | None => {}
                }
            }
            match (kind.as_str(), version.as_deref()) {
                ("application/openmetrics-text", None | Some("1.0.0")) => open = quality.max(open),
                ("text/plain", None | Some("0.0.4")) => plain = quality.max(plain),
                (_, _) => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Plain }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Puts what the library wrote into this form.
    pub(super) fn of(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Plain => openmetrics.lines().filter_map(plain).collect(),
        }
    }
}

fn plain(line: &str) -> Option<String> {
    if line == "# EOF" {
        return None;
    }
    let described = ["# HELP ", "# TYPE "].into_iter().find_map(|head| {
        let (name, rest) = line.strip_prefix(head)?.split_once(' ')?;
        let whole = format!("{name}_total");
        let is_counter = CATALOGUE.iter().any(|entry| entry.kind == Kind::Counter && entry.name == whole);
        is_counter.then(|| format!("{head}{whole} {rest}\n"))
    });
    Some(described.unwrap_or_else(|| format!("{line}\n")))
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn who_asks_for_openmetrics_gets_it_and_everybody_else_the_plain_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, form) in [
            (Some(prometheus), Form::OpenMetrics),
            (Some("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8"), Form::OpenMetrics),
            (Some("text/plain, application/openmetrics-text"), Form::OpenMetrics),
            (Some("text/plain;version=0.0.4, application/openmetrics-text;q=0.3"), Form::Plain),
            (Some("application/openmetrics-text;q=0"), Form::Plain),
            (Some("application/openmetrics-text;version=0.0.1"), Form::Plain),
            (Some("application/openmetrics-text;q=x"), Form::Plain),
            (Some("text/html,*/*"), Form::Plain),
            (Some(""), Form::Plain),
            (None, Form::Plain),
        ] {
            assert_eq!(Form::wanted(accept), form, "{accept:?}");
        }
    }

    #[test]
    fn in_the_plain_text_a_counter_is_described_under_its_whole_name() {
        let text = "# HELP jobwatch_polls Polls.\n# TYPE jobwatch_polls counter\njobwatch_polls_total{source=\"a\"} 1\n# TYPE jobwatch_jobs gauge\n# EOF\n";
        assert_eq!(
            Form::Plain.of(text.to_owned()),
            "# HELP jobwatch_polls_total Polls.\n# TYPE jobwatch_polls_total counter\njobwatch_polls_total{source=\"a\"} 1\n# TYPE jobwatch_jobs gauge\n"
        );
        assert_eq!(Form::OpenMetrics.of(text.to_owned()), text);
    }
}
