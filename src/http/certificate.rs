//! When a certificate ends: the one thing that is to be known of it, so it is read by hand (RFC 5280 §4.1, DER).

/// When the certificate ends, in seconds since 1970; `None` if this is none.
pub fn ends(der: &[u8]) -> Option<i64> {
    let (certificate, _) = inside(der, 0x30)?;
    let (mut rest, _) = inside(certificate, 0x30)?;
    if rest.first() == Some(&0xa0) {
        rest = skip(rest)?;
    }
    // The serial number, the algorithm, the issuer; then from when until when.
    for _ in 0..3 {
        rest = skip(rest)?;
    }
    let (validity, _) = inside(rest, 0x30)?;
    time(skip(validity)?)
}

/// A value and its tag, and what comes after it.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, length) = (*der.first()?, *der.get(1)?);
    let (length, from) = match length {
        0..=0x7f => (usize::from(length), 2),
        0x81..=0x83 => {
            let count = usize::from(length & 0x7f);
            let bytes = der.get(2..2 + count)?;
            (bytes.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)), 2 + count)
        }
        _ => return None,
    };
    let rest = der.get(from..)?;
    Some((tag, rest.get(..length)?, rest.get(length..)?))
}

fn inside(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = value(der)?;
    (tag == wanted).then_some((content, rest))
}

fn skip(der: &[u8]) -> Option<&[u8]> {
    value(der).map(|(_, _, rest)| rest)
}

/// `YYMMDDHHMMSSZ`, in which 50 and more are of the last century, or `YYYYMMDDHHMMSSZ`.
fn time(der: &[u8]) -> Option<i64> {
    let (tag, content, _) = value(der)?;
    let digits = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let year: i16 = digits.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, digits.get(2..)?)
        }
        0x18 => (digits.get(..4)?.parse().ok()?, digits.get(4..)?),
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i8>().ok();
    let date = jiff::civil::DateTime::new(year, two(0)?, two(2)?, two(4)?, two(6)?, two(8)?, 0).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(date).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::ends;

    #[test]
    fn a_certificate_s_end_is_read_and_what_is_cut_is_no_certificate() {
        for (year, seconds) in [(2031, 1_924_992_000), (2120, 4_733_510_400)] {
            let mut parameters = rcgen::CertificateParams::new(vec!["mail.example.org".into()]).unwrap();
            parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            let der = certificate.der();
            assert_eq!(ends(der), Some(seconds), "{year}");
            for length in 0..40 {
                assert_eq!(ends(&der[..length]), None, "{length}");
            }
        }
        assert_eq!(ends(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
