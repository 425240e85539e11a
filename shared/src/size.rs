//! Sizes and rates as the configuration writes them: `"512MiB"`, `"10Gbps"`.

/// Bytes from `"512MiB"`, `"2GB"` or `"65536B"`; a bare number is bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "`{text}` is not a size: write a number and a unit, such as \"64KiB\", \"512MiB\" or \"2GiB\""
        )
    };
    let (number, unit) = split_unit(text).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    scale(number, factor).ok_or_else(wrong)
}

/// Bits per second from `"10Gbps"`, `"800Mbps"`, `"64kbps"` or `"9600bps"`.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("`{text}` is not a rate: write bits per second, such as \"800Mbps\" or \"10Gbps\"")
    };
    let (number, unit) = split_unit(text).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "bps" => 1,
        "kbps" | "Kbps" => 1000,
        "Mbps" => 1_000_000,
        "Gbps" => 1_000_000_000,
        "Tbps" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    scale(number, factor).ok_or_else(wrong)
}

/// The largest unit that divides the size: `"512MiB"`.
pub fn format_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then(|| (number, unit.trim_start_matches(' ')))
}

/// `number` may have a fraction (`"1.5GiB"`), computed exactly.
fn scale(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let mut total = whole.checked_mul(factor)?;
    if number.contains('.') {
        let digits = u32::try_from(fraction.len()).ok().filter(|n| (1..=9).contains(n))?;
        let parts: u128 = fraction.parse().ok()?;
        let extra = parts * u128::from(factor) / 10u128.pow(digits);
        total = total.checked_add(u64::try_from(extra).ok()?)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("65536B", 65_536),
            ("64KiB", 65_536),
            ("512MiB", 536_870_912),
            ("1.5GiB", 1_610_612_736),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "1.MiB", "1..5MiB", "12 parsecs", "99999999999TiB", "1mib"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_bits_per_second() {
        assert_eq!(parse_rate("20Gbps"), Ok(20_000_000_000));
        assert_eq!(parse_rate("2.5Gbps"), Ok(2_500_000_000));
        assert!(parse_rate("20GB").is_err());
        assert!(parse_rate("20").is_err());
    }

    #[test]
    fn sizes_print_in_the_largest_exact_unit() {
        for text in ["512MiB", "3GiB", "1000B", "1536KiB"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
    }
}
