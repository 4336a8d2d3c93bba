//! What can go wrong with an answer, on demand.

/// A way to answer wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 500 with the documented body.
    ServerError,
    /// 401 as the gateway sends it.
    Unauthorized,
    /// 403 with an encoded authorisation message.
    Forbidden,
    /// 400 with the documented body.
    BadRequest,
    /// 429 with the throttling policy in its text, and `Retry-After: 2`.
    Throttled,
    /// 200 with an HTML login page, as a captive portal sends it.
    Html,
    /// 502 with an HTML page.
    BadGateway,
    /// 200 whose body ends before its `Content-Length`.
    Truncated,
    /// 200 with no body at all.
    Empty,
    /// 200 with half a JSON document.
    NotJson,
    /// 302 to another place.
    Redirect,
    /// Each page shows one more job in front than the one before, so that rows shift from page to page.
    Shifting,
    /// 200 with an empty list and a total that disagrees.
    Disagreeing,
    /// No answer at all.
    Hang,
}

impl Fault {
    /// The words for them in scenarios.
    pub const WORDS: &[(&str, Self)] = &[
        ("server_error", Self::ServerError),
        ("unauthorized", Self::Unauthorized),
        ("forbidden", Self::Forbidden),
        ("bad_request", Self::BadRequest),
        ("throttled", Self::Throttled),
        ("html", Self::Html),
        ("bad_gateway", Self::BadGateway),
        ("truncated", Self::Truncated),
        ("empty", Self::Empty),
        ("not_json", Self::NotJson),
        ("redirect", Self::Redirect),
        ("shifting", Self::Shifting),
        ("disagreeing", Self::Disagreeing),
        ("hang", Self::Hang),
    ];
}
