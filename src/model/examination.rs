//! What came of looking at one thing that seeing or telling depends on.

/// One line for whoever asks what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word.
    pub what: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found, with what would mend it.
    pub text: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good,
    /// It works, and should be mended.
    Doubtful,
    /// It does not work.
    Bad,
}

impl Finding {
    /// One of these.
    pub fn new(what: &'static str, health: Health, text: impl Into<String>) -> Self {
        Self { what, health, text: text.into() }
    }
}
