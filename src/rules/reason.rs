//! The class of a failure reason: the reason with its variable parts replaced, so that equal causes group.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What is replaced, in this order, and by what: only where it holds a digit, so that `facade` and `a:b:c` stay words. The result is a key in people's stores: a change here is a new version
/// of the product, and `the_classes_of_known_reasons_never_change` holds it.
static STEPS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let steps = [
        // RFC 3339 and its looser cousins: 2021-05-12T03:50:43.315473Z, 2025-09-02 10:23:38 +0000
        (r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?", "<time>"),
        (r"\b\d{4}-\d{2}-\d{2}\b", "<time>"),
        (r"\b\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?\b", "<time>"),
        // UUIDs, with and without hyphens.
        (r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<id>"),
        // Addresses, with a prefix length or a port.
        (r"\b(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?::\d{1,5})?\b", "<addr>"),
        (r"(?i)\b[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7}(?:/\d{1,3})?", "<addr>"),
        (r"(?i)\b0x[0-9a-f]+\b", "<hex>"),
        // Commit ids, digests, request ids.
        (r"(?i)\b[0-9a-f]{8,}\b", "<hex>"),
        // Numbers, alone or at the end of a word: node-17, 8192Mi, 99.5%.
        (r"\d+(?:[.,]\d+)*", "<n>"),
    ];
    steps.map(|(pattern, by)| (Regex::new(pattern).expect("the patterns are constants"), by)).into()
});

/// Classes are no longer than this, in characters.
const CLASS_MAX: usize = 200;

/// The class of a reason. Empty for an empty or missing reason.
pub fn reason_class(reason: &str) -> String {
    let head: String = reason.chars().take(CLASS_MAX * 8).collect();
    let mut class = head.split_whitespace().collect::<Vec<_>>().join(" ");
    for (pattern, by) in STEPS.iter() {
        let replace = |found: &Captures<'_>| {
            let text = &found[0];
            if text.bytes().any(|b| b.is_ascii_digit()) { (*by).to_owned() } else { text.to_owned() }
        };
        class = pattern.replace_all(&class, replace).into_owned();
    }
    class.chars().take(CLASS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::reason_class;

    #[test]
    fn the_classes_of_known_reasons_never_change() {
        let known = [
            ("failed to select cce cluster", "failed to select cce cluster"),
            ("quota 17 exceeded", "quota <n> exceeded"),
            (
                "node 10.1.2.3:6443 unreachable since 2021-05-12T03:50:43.315473Z",
                "node <addr> unreachable since <time>",
            ),
            ("instance 36db69c5-b2d5-11eb-b044-0255ac101219 not found", "instance <id> not found"),
            ("request 0255ac101219f3 failed at 0xdeadBEEF", "request <hex> failed at <hex>"),
            ("subnet fe80::1:2:3:4/64 is  full\n", "subnet <addr> is full"),
            ("pod swr-core-7 used 8192Mi (99.5%)", "pod swr-core-<n> used <n>Mi (<n>%)"),
            ("配额不足: 需要 3 个节点", "配额不足: 需要 <n> 个节点"),
            ("a facade of cafebabe: a:b:c was defaced", "a facade of cafebabe: a:b:c was defaced"),
            ("", ""),
        ];
        for (reason, class) in known {
            assert_eq!(reason_class(reason), class, "{reason:?}");
        }
    }

    #[test]
    fn a_class_is_its_own_class_and_bounded() {
        let long = "the disk sda1 is full; ".repeat(5_000);
        let class = reason_class(&long);
        assert_eq!(class.chars().count(), 200);
        assert_eq!(reason_class("quota <n> exceeded"), "quota <n> exceeded");
    }
}
