//! LOC records (RFC 1876): a place on Earth, text to wire form.

use super::file::Token;

/// The equator, the prime meridian: half of the range.
const ZERO: i64 = 1 << 31;

/// Altitudes count from 100,000 m below the reference spheroid, in centimetres.
const BASE_CENTIMETRES: i64 = 10_000_000;

/// Reads `d [m [s]] N|S d [m [s]] E|W altitude [size [horizontal [vertical]]]` (§3).
pub(super) fn parse(tokens: &[Token<'_>]) -> Result<Vec<u8>, String> {
    let mut words = tokens.iter().map(|token| token.as_str().unwrap_or_default());
    let latitude = angle(&mut words, 90, ["N", "S"])?;
    let longitude = angle(&mut words, 180, ["E", "W"])?;
    let altitude = words.next().ok_or("the altitude is missing")?;
    let altitude = centimetres(altitude)
        .and_then(|cm| u32::try_from(cm + BASE_CENTIMETRES).ok())
        .ok_or_else(|| format!("`{altitude}` is not an altitude such as `24m`"))?;
    let mut sizes = [0x12, 0x16, 0x13];
    for size in &mut sizes {
        let Some(word) = words.next() else { break };
        *size = precision(word).ok_or_else(|| format!("`{word}` is not a size such as `30m`"))?;
    }
    if let Some(extra) = words.next() {
        return Err(format!("`{extra}` is one field too many"));
    }
    let mut rdata = vec![0];
    rdata.extend(sizes);
    rdata.extend(latitude.to_be_bytes());
    rdata.extend(longitude.to_be_bytes());
    rdata.extend(altitude.to_be_bytes());
    Ok(rdata)
}

/// Thousandths of a second of arc, from [`ZERO`].
fn angle<'t>(
    words: &mut impl Iterator<Item = &'t str>,
    most: i64,
    [positive, negative]: [&str; 2],
) -> Result<u32, String> {
    let mut parts = Vec::new();
    let sign = loop {
        let word = words.next().ok_or_else(|| format!("{positive} or {negative} is missing"))?;
        if word.eq_ignore_ascii_case(positive) {
            break 1;
        }
        if word.eq_ignore_ascii_case(negative) {
            break -1;
        }
        parts.push(word);
    };
    let wrong = || {
        format!(
            "`{}` is no angle: write degrees, minutes, seconds, as `42 21 54.5 {positive}`",
            parts.join(" ")
        )
    };
    let whole = |text: &str, most: i64| text.parse().ok().filter(|n: &i64| (0..=most).contains(n));
    let (degrees, rest) = parts.split_first().ok_or_else(wrong)?;
    let minutes = rest.first().copied().unwrap_or("0");
    let seconds = rest.get(1).copied().unwrap_or("0");
    let seconds = thousandths(seconds).filter(|seconds| (0..60_000).contains(seconds));
    let total = (|| Some((whole(degrees, most)? * 60 + whole(minutes, 59)?) * 60_000 + seconds?))();
    let total = total.filter(|total| *total <= most * 3_600_000 && rest.len() <= 2);
    let total = total.ok_or_else(wrong)?;
    u32::try_from(ZERO + sign * total).map_err(|_| wrong())
}

/// `54.5` to 54500.
fn thousandths(text: &str) -> Option<i64> {
    fixed(text, 3)
}

/// `-24m`, `24.50`: metres to centimetres.
fn centimetres(text: &str) -> Option<i64> {
    let text = text.strip_suffix(['m', 'M']).unwrap_or(text);
    match text.strip_prefix('-') {
        Some(below) => fixed(below, 2).map(|cm| -cm),
        None => fixed(text, 2),
    }
}

/// A decimal number with at most `digits` digits behind the point, in units of the last one.
fn fixed(text: &str, digits: usize) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let plain = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
    if whole.is_empty() || whole.len() > 9 || part.len() > digits || !plain(whole) || !plain(part) {
        return None;
    }
    format!("{whole}{part:0<digits$}").parse().ok()
}

/// §2: a digit and a power of ten, in centimetres.
fn precision(text: &str) -> Option<u8> {
    let mut mantissa = centimetres(text).filter(|cm| (0..=9_000_000_000).contains(cm))?;
    let mut exponent = 0_u8;
    while mantissa > 9 {
        mantissa /= 10;
        exponent += 1;
    }
    Some((mantissa as u8) << 4 | exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::file::tokens_of;

    fn loc(text: &str) -> Result<Vec<u8>, String> {
        parse(&tokens_of(text))
    }

    /// The wire form of each, by the units of RFC 1876 §2.
    #[test]
    fn places_of_rfc_1876_section_4() {
        let wire = |sizes: [u8; 3], latitude: i64, longitude: i64, altitude: i64| {
            let mut wire = vec![0];
            wire.extend(sizes);
            for value in [ZERO + latitude, ZERO + longitude, BASE_CENTIMETRES + altitude] {
                wire.extend(u32::try_from(value).unwrap().to_be_bytes());
            }
            wire
        };
        let angle = |d: i64, m: i64, thousandths: i64| (d * 60 + m) * 60_000 + thousandths;
        for (text, expected) in [
            (
                "42 21 54 N 71 06 18 W -24m 30m",
                wire([0x33, 0x16, 0x13], angle(42, 21, 54_000), -angle(71, 6, 18_000), -2400),
            ),
            (
                "42 21 43.952 N 71 5 6.344 W -24m 1m 200m",
                wire([0x12, 0x24, 0x13], angle(42, 21, 43_952), -angle(71, 5, 6344), -2400),
            ),
            (
                "52 14 05 N 00 08 50 E 10m",
                wire([0x12, 0x16, 0x13], angle(52, 14, 5000), angle(0, 8, 50_000), 1000),
            ),
            (
                "32 7 19 S 116 2 25 E 10m",
                wire([0x12, 0x16, 0x13], -angle(32, 7, 19_000), angle(116, 2, 25_000), 1000),
            ),
            ("90 S 180 W 0.5", wire([0x12, 0x16, 0x13], -angle(90, 0, 0), -angle(180, 0, 0), 50)),
            (
                "1 N 1 E 42849672.95m 90000000.00m 0m 0.01m",
                wire([0x99, 0x00, 0x10], angle(1, 0, 0), angle(1, 0, 0), 4_284_967_295),
            ),
        ] {
            assert_eq!(loc(text).as_deref(), Ok(expected.as_slice()), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "N",
            "42 N",
            "42 N 71 W",
            "91 N 71 W 0m",
            "90 0 0.001 N 71 W 0m",
            "42 60 N 71 W 0m",
            "42 0 60 N 71 W 0m",
            "42 0 0.0001 N 71 W 0m",
            "42 0 0 0 N 71 W 0m",
            "-42 N 71 W 0m",
            "42 E 71 N 0m",
            "42 N 181 W 0m",
            "42 N 71 W high",
            "42 N 71 W 99999999m",
            "42 N 71 W 0m -1m",
            "42 N 71 W 0m 1m 1m 1m 1m",
        ] {
            assert!(loc(text).is_err(), "{text}");
        }
    }
}
