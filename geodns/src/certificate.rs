//! When a certificate ends (RFC 5280 §4.1.2.5), for checks that ask how many days are left.
//!
//! Reads only as far as that; whether the certificate is good is the TLS library's to say, before.

use shared::time::UnixMillis;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The notAfter of a certificate in DER. None: it is not one.
pub fn ends(der: &[u8]) -> Option<UnixMillis> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (to_be_signed, _) = expect(certificate, SEQUENCE)?;
    let after_version = match element(to_be_signed)? {
        (VERSION, _, rest) => rest,
        _ => to_be_signed,
    };
    let (_, _, after_serial) = element(after_version)?;
    let (_, after_algorithm) = expect(after_serial, SEQUENCE)?;
    let (_, after_issuer) = expect(after_algorithm, SEQUENCE)?;
    let (validity, _) = expect(after_issuer, SEQUENCE)?;
    let (_, _, not_after) = element(validity)?;
    let (tag, text, _) = element(not_after)?;
    time(tag, text)
}

/// Whole days from `now` until then, rounded down; negative when it is over.
pub const fn days_left(ends: UnixMillis, now: UnixMillis) -> i64 {
    (ends.0 as i64).saturating_sub(now.0 as i64).div_euclid(86_400_000)
}

fn expect(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(input).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// Tag and content of the first element, and what follows it (X.690 §8.1, in definite form).
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime has two digits of the year, which stand for 1950 to 2049; both end with `Z` (RFC 5280 §4.1.2.5.1, .2).
fn time(tag: u8, text: &[u8]) -> Option<UnixMillis> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number =
        |digits: &[u8]| digits.iter().fold(0_i64, |n, digit| n * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year), rest)
        }
        _ => return None,
    };
    let mut parts = rest.chunks_exact(2).map(number);
    let mut next = || parts.next().unwrap_or_default();
    let (month, day, hour, minute, second) = (next(), next(), next(), next(), next());
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    // What ended before 1970 has ended.
    Some(UnixMillis::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last of its year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        for (date, expected) in [
            ((2000, 2, 29), "2000-02-29T00:00:00.000Z"),
            ((2049, 12, 31), "2049-12-31T00:00:00.000Z"),
            ((2050, 1, 1), "2050-01-01T00:00:00.000Z"),
            ((2100, 3, 1), "2100-03-01T00:00:00.000Z"),
            ((1999, 12, 31), "1999-12-31T00:00:00.000Z"),
        ] {
            let (year, month, day) = date;
            let ends = ends(&certificate(year, month, day)).unwrap();
            assert_eq!(ends.to_string(), expected);
        }
    }

    #[test]
    fn days_are_whole() {
        let day = 86_400_000;
        for (ends, now, days) in [
            (10 * day, 0, 10),
            (10 * day - 1, 0, 9),
            (day, day, 0),
            (day - 1, day, -1),
            (0, 5 * day, -5),
        ] {
            assert_eq!(days_left(UnixMillis(ends), UnixMillis(now)), days, "{ends} {now}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_are_too_strange(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ends(&octets);
        }

        #[test]
        fn no_cut_or_changed_certificate_is_too_strange(at in 0_usize..300, with: u8, length in 0_usize..400) {
            let mut der = certificate(2030, 1, 1);
            if let Some(octet) = der.get_mut(at) {
                *octet = with;
            }
            der.truncate(length);
            let _ = ends(&der);
        }
    }
}
