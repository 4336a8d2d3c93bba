//! The class of a failure reason: the reason with its variable parts replaced, so that equal causes group.
//!
//! The class is a key in people's stores and a text in people's rules. What it is made of, in this order:
//!
//! 1. The first 1,600 characters. Full-width digits and letters become plain ones, and so do `．：－／` between two digits;
//!    each run of white space becomes one blank.
//! 2. `STEPS`, from the first to the last, each over the whole text. A step replaces only what holds a digit (or what the step
//!    says), so that `facade` and `a:b:c` stay words. Words end where ASCII letters and digits end, and at `_`: an id that is
//!    glued to Chinese text is an id.
//! 3. The first 200 characters.
//!
//! A class is its own class. A change of any of this is a new version of the product, and
//! `the_classes_of_known_reasons_never_change` holds it.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Classes are no longer than this, in characters.
const CLASS_MAX: usize = 200;

/// What a step replaces, and by what. The groups `before` and `after` are only looked at.
struct Step {
    pattern: Regex,
    by: &'static str,
    only: Only,
}

/// What has to be in a text that is replaced.
#[derive(Clone, Copy)]
enum Only {
    Digit,
    /// A number of many digits is a number, not an id.
    DigitAndLetter,
    /// Four digits: a long name may have one or two.
    Digits,
    Anything,
}

static STEPS: LazyLock<Vec<Step>> = LazyLock::new(|| {
    const MONTH: &str = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*";
    const DAY: &str = "(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?";
    const CLOCK: &str = "[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?";
    // The last is what Go prints of its monotonic clock.
    const ZONE: &str = "(?: ?(?:Z|UTC|GMT|CST|[+-][0-9]{2}:?[0-9]{2})(?-u:\\b))*(?: m=[+-][0-9.]+)?";
    // What Kubernetes makes names of: no vowels, and no digits that look like them.
    const K8S: &str = "[bcdfghjklmnpqrstvwxz2456789]";
    let word = |inner: &str| format!(r"(?-u:(?<before>\b|_))(?:{inner})(?-u:(?<after>\b|_))");
    let start = |inner: &str| format!(r"(?-u:(?<before>\b|_))(?:{inner})");
    let steps = [
        // Files that were made to be thrown away.
        (r#"(?<before>/tmp/)[^\s'"`,;:()，；：（）]+"#.to_owned(), "<path>", Only::Anything),
        // 2021-05-12T03:50:43.315473Z, 2025/09/02 10:23:38 +0000 UTC m=+0.3, 20210512T035043Z, 2021-05-12
        (start(&format!("[0-9]{{4}}[-/][0-9]{{1,2}}[-/][0-9]{{1,2}}(?:[T ]{CLOCK}{ZONE})?")), "<time>", Only::Digit),
        (word("[0-9]{8}T[0-9]{6}(?:[.][0-9]+)?Z?"), "<time>", Only::Digit),
        // 2021年5月12日 11时50分43秒, 2021年05月12日11:50:43
        (
            start(&format!(
                "[0-9]{{4}}年[0-9]{{1,2}}月[0-9]{{1,2}}日(?: ?(?:{CLOCK}|[0-9]{{1,2}}[时時][0-9]{{1,2}}分(?:[0-9]{{1,2}}秒)?))?"
            )),
            "<time>",
            Only::Digit,
        ),
        // Wed, 12 May 2021 03:50:43 GMT; Wed May 12 03:50:43 UTC 2021; May 12 03:50:43
        (start(&format!("{DAY}[0-9]{{1,2}} {MONTH} [0-9]{{4}}(?: {CLOCK}{ZONE})?")), "<time>", Only::Digit),
        (start(&format!("{DAY}{MONTH} [0-9]{{1,2}},?(?: [0-9]{{4}})? {CLOCK}{ZONE}(?: [0-9]{{4}}{ZONE})?")), "<time>", Only::Digit),
        // Not in the middle of an address.
        (format!("(?<before>^|[^0-9A-Za-z:]){CLOCK}{ZONE}"), "<time>", Only::Digit),
        // sha256:9f86d081…
        (word("(?i)sha(?:1|224|256|384|512):[0-9a-f]{8,}"), "<digest>", Only::Digit),
        // UUIDs.
        (word("(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>", Only::Digit),
        // What is called an id: request_id: 8Gk29Lq0, X-Request-Id=…, 请求ID：…
        (
            r#"(?<before>(?i:(?:request|trace|task|job|order|event|span|session|请求|任务|订单|事务)[-_ ]?id)["']? ?[:=：]? ?["']?)[0-9A-Za-z][0-9A-Za-z._-]{5,}"#
                .to_owned(),
            "<id>",
            Only::Digit,
        ),
        // 10.1.2.3, 10.1.0.0/16, 10.1.2.3:6443
        (word("(?:[0-9]{1,3}[.]){3}[0-9]{1,3}(?:/[0-9]{1,2})?(?::[0-9]{1,5})?"), "<addr>", Only::Digit),
        // fe80::1:2, 2001:db8::/32, ::1, fa:16:3e:12:34:56
        (start("(?i)[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7}(?:/[0-9]{1,3})?"), "<addr>", Only::Digit),
        (
            "(?<before>^|[^0-9A-Za-z:>])(?i:::[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})(?:/[0-9]{1,3})?".to_owned(),
            "<addr>",
            Only::Digit,
        ),
        // The pods of a deployment, of a daemon set: swr-core-7d9f8b6c5d-x2x4z, swr-agent-x2x4z
        (format!("(?<before>[0-9A-Za-z]-){K8S}{{8,10}}-{K8S}{{5}}(?-u:\\b)"), "<id>", Only::Digit),
        (format!("(?<before>[0-9A-Za-z]-){K8S}{{5}}(?-u:\\b)"), "<id>", Only::DigitAndLetter),
        (word("(?i)0x[0-9a-f]+"), "<hex>", Only::Digit),
        // Commit ids, projects, digests.
        (word("(?i)[0-9a-f]{8,}"), "<hex>", Only::DigitAndLetter),
        // Other ids: 01HXK3V5B8Q2M7N9P4R6T8W0YZ
        (word("[0-9A-Za-z]{20,}"), "<id>", Only::Digits),
        // 1m30s and 1h0m5s are what 45s is.
        (word("(?:[0-9]+h)?[0-9]+m[0-9]+(?:[.][0-9]+)?s"), "<n>s", Only::Digit),
        // Numbers, alone or in a word: node-17, 8192Mi, 99.5%.
        ("[0-9]+(?:[.,][0-9]+)*".to_owned(), "<n>", Only::Digit),
    ];
    let step = |(pattern, by, only): (String, &'static str, Only)| Step {
        pattern: Regex::new(&pattern).expect("the patterns are constants"),
        by,
        only,
    };
    steps.into_iter().map(step).collect()
});

/// The class of a reason. Empty for an empty or missing reason.
pub fn reason_class(reason: &str) -> String {
    let head: Vec<char> = reason.chars().take(CLASS_MAX * 8).map(narrow).collect();
    let head: String = head.iter().enumerate().map(|(at, c)| joint(&head, at).unwrap_or(*c)).collect();
    let mut class = head.split_whitespace().collect::<Vec<_>>().join(" ");
    if class.contains(|c: char| c.is_ascii_digit()) || class.contains("/tmp/") {
        for step in STEPS.iter() {
            class = step.pattern.replace_all(&class, |found: &Captures<'_>| step.replace(found)).into_owned();
        }
    }
    class.chars().take(CLASS_MAX).collect()
}

impl Step {
    fn replace(&self, found: &Captures<'_>) -> String {
        let part = |name| found.name(name).map_or("", |part| part.as_str());
        let (before, after) = (part("before"), part("after"));
        let inner = &found[0][before.len()..found[0].len() - after.len()];
        if self.only.is_in(inner) { format!("{before}{}{after}", self.by) } else { found[0].to_owned() }
    }
}

impl Only {
    fn is_in(self, text: &str) -> bool {
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        match self {
            Self::Digit => digits > 0,
            Self::DigitAndLetter => digits > 0 && text.bytes().any(|b| b.is_ascii_alphabetic()),
            Self::Digits => digits > 3 && digits < text.len(),
            Self::Anything => true,
        }
    }
}

/// A full-width digit or letter as a plain one.
fn narrow(c: char) -> char {
    match c {
        '０'..='９' | 'Ａ'..='Ｚ' | 'ａ'..='ｚ' => char::from_u32(u32::from(c) - 0xFEE0).unwrap_or(c),
        other => other,
    }
}

/// A full-width mark between digits as a plain one: it belongs to a time or an address.
fn joint(text: &[char], at: usize) -> Option<char> {
    let mark = match text[at] {
        '．' => '.',
        '：' => ':',
        '－' => '-',
        '／' => '/',
        _ => return None,
    };
    let digit = |at: usize| text.get(at).is_some_and(char::is_ascii_digit);
    (at > 0 && digit(at - 1) && digit(at + 1)).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::reason_class;

    /// Texts as the cloud's services write them, and their classes.
    const KNOWN: &[(&str, &str)] = &[
        ("failed to select cce cluster", "failed to select cce cluster"),
        ("quota 17 exceeded", "quota <n> exceeded"),
        ("node 10.1.2.3:6443 unreachable since 2021-05-12T03:50:43.315473Z", "node <addr> unreachable since <time>"),
        ("instance 36db69c5-b2d5-11eb-b044-0255ac101219 not found", "instance <id> not found"),
        ("request 0255ac101219f3 failed at 0xdeadBEEF", "request <hex> failed at <hex>"),
        ("subnet fe80::1:2:3:4/64 is  full\n", "subnet <addr> is full"),
        ("pod swr-core-7 used 8192Mi (99.5%)", "pod swr-core-<n> used <n>Mi (<n>%)"),
        ("配额不足: 需要 3 个节点", "配额不足: 需要 <n> 个节点"),
        ("a facade of cafebabe: a:b:c was defaced", "a facade of cafebabe: a:b:c was defaced"),
        ("", ""),
        // Glued to Chinese text.
        ("实例36db69c5-b2d5-11eb-b044-0255ac101219不存在", "实例<id>不存在"),
        ("节点10.1.2.3不可达", "节点<addr>不可达"),
        ("创建集群失败，项目0605768a3300d5762f8cc01d2b3e4f50配额已满", "创建集群失败，项目<hex>配额已满"),
        ("请求超时：30秒内未收到10.0.0.7:5443的响应", "请求超时：<n>秒内未收到<addr>的响应"),
        ("子网fe80::1:2/64地址不足，剩余0个", "子网<addr>地址不足，剩余<n>个"),
        // Full-width digits and marks.
        ("配额不足：当前 １２，上限 １０", "配额不足：当前 <n>，上限 <n>"),
        ("节点１０．１．２．３不可达", "节点<addr>不可达"),
        ("于２０２１－０５－１２　０３：５０：４３失败", "于<time>失败"),
        // Quota.
        (
            "Quota exceeded for resources: ['instance']. Used 5, limit 5",
            "Quota exceeded for resources: ['instance']. Used <n>, limit <n>",
        ),
        (
            "{\"error_code\":\"VPC.0212\",\"error_msg\":\"Quota exceeded for resources: ['vpc'].\"}",
            "{\"error_code\":\"VPC.<n>\",\"error_msg\":\"Quota exceeded for resources: ['vpc'].\"}",
        ),
        ("the disk needs 10737418240 bytes, 1048576 are free", "the disk needs <n> bytes, <n> are free"),
        ("the disk needs 512 bytes, 1,024 are free", "the disk needs <n> bytes, <n> are free"),
        // Networks.
        ("No available IP in subnet 192.168.0.0/24", "No available IP in subnet <addr>"),
        (
            "port fa:16:3e:12:34:56 of subnet 8c3a7d92-1f00-4b7a-9e55-0c2d4e6f8a1b is in use",
            "port <addr> of subnet <id> is in use",
        ),
        ("dial tcp [2001:db8::1]:443: i/o timeout", "dial tcp [<addr>]:<n>: i/o timeout"),
        ("dial tcp 127.0.0.1:8080: connect: connection refused", "dial tcp <addr>: connect: connection refused"),
        ("listen on ::1 refused, ::ffff:10.1.2.3 too", "listen on <addr> refused, ::ffff:<addr> too"),
        (
            "lookup ha-36ce7f50b2d5.swr-pro.myhuaweicloud.com on 100.125.1.250:53: no such host",
            "lookup ha-<hex>.swr-pro.myhuaweicloud.com on <addr>: no such host",
        ),
        // Timeouts.
        ("context deadline exceeded after 1m30s", "context deadline exceeded after <n>s"),
        ("context deadline exceeded after 45s", "context deadline exceeded after <n>s"),
        ("context deadline exceeded after 1h0m0.5s", "context deadline exceeded after <n>s"),
        ("timed out waiting for pod swr-core-7d9f8b6c5d-x2x4z", "timed out waiting for pod swr-core-<id>"),
        ("timed out waiting for pod swr-core-6f5c9d7b8-9kqzw", "timed out waiting for pod swr-core-<id>"),
        ("daemon set pod swr-agent-x2x4z is not ready", "daemon set pod swr-agent-<id> is not ready"),
        ("node-24578 and node-13579 are not ready", "node-<n> and node-<n> are not ready"),
        // Certificates.
        (
            "x509: certificate has expired or is not yet valid: current time 2025-09-02T10:23:38+08:00 is after 2025-09-01T00:00:00Z",
            "x<n>: certificate has expired or is not yet valid: current time <time> is after <time>",
        ),
        ("certificate serial 4F:8B:2C:1D:0A is revoked", "certificate serial <addr> is revoked"),
        ("not after Sep  2 10:23:38 2025 GMT", "not after <time>"),
        // Times.
        ("failed on Wed, 12 May 2021 03:50:43 GMT", "failed on <time>"),
        ("failed on Wed May 12 03:50:43 UTC 2021", "failed on <time>"),
        ("failed at 2025-09-02 10:23:38.123456 +0000 UTC m=+0.300000001", "failed at <time>"),
        ("failed at 2025/9/2 10:23:38,123", "failed at <time>"),
        ("failed at 20210512T035043Z", "failed at <time>"),
        ("failed at 03:50:43", "failed at <time>"),
        ("failed at 1620791443", "failed at <n>"),
        ("于2021年5月12日 11时50分43秒创建失败", "于<time>创建失败"),
        ("于2021年05月12日11:50:43创建失败", "于<time>创建失败"),
        // Ids.
        ("IAM.0101: request_id: 1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d", "IAM.<n>: request_id: <id>"),
        ("AccessDenied, RequestId=8Gk29LqPz, HostId=x", "AccessDenied, RequestId=<id>, HostId=x"),
        ("access denied, \"request_id\":\"QxZ0-77Gk.2\"", "access denied, \"request_id\":\"<id>\""),
        ("权限不足，请求ID：Ab12Cd34Ef，请联系管理员", "权限不足，请求ID：<id>，请联系管理员"),
        ("order 01HXK3V5B8Q2M7N9P4R6T8W0YZ was refused", "order <id> was refused"),
        ("volume pvc_36db69c5-b2d5-11eb-b044-0255ac101219_data is in use", "volume pvc_<id>_data is in use"),
        (
            "urn:smn:cn-north-4:0605768a3300d5762f8cc01d2b3e4f50:alarm is gone",
            "urn:smn:cn-north-<n>:<hex>:alarm is gone",
        ),
        ("arn:aws:iam::123456789012:role/swr is refused", "arn:aws:iam::<n>:role/swr is refused"),
        // OBS, images and files.
        (
            "pull swr.cn-north-4.myhuaweicloud.com/team/app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08: not found",
            "pull swr.cn-north-<n>.myhuaweicloud.com/team/app@<digest>: not found",
        ),
        (
            "OBS bucket swr-36ce7f50 in ap-southeast-3: 404 NoSuchBucket",
            "OBS bucket swr-<hex> in ap-southeast-<n>: <n> NoSuchBucket",
        ),
        ("open /tmp/tmp.XaQzLbWq/values: no such file", "open /tmp/<path>: no such file"),
        ("open /var/lib/swr/17/core.yaml: no such file", "open /var/lib/swr/<n>/core.yaml: no such file"),
        ("KubernetesClusterV1Beta1Provider has no route", "KubernetesClusterV<n>Beta<n>Provider has no route"),
    ];

    #[test]
    fn the_classes_of_known_reasons_never_change() {
        for (reason, class) in KNOWN {
            assert_eq!(reason_class(reason), *class, "{reason:?}");
        }
    }

    #[test]
    fn a_class_is_its_own_class_and_bounded() {
        let long = "the disk sda1 is full; ".repeat(5_000);
        let class = reason_class(&long);
        assert_eq!(class.chars().count(), 200);
        for (reason, class) in KNOWN {
            assert_eq!(reason_class(class), *class, "{reason:?}");
        }
    }
}
