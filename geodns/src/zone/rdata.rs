//! RDATA from the text of master files to wire form.
//!
//! Each type is a list of fields; a field knows its own text. Names are written in full, never compressed, so that
//! rendered records can be copied to any offset. Types without a form here can be written in RFC 3597's `\#` form.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::file::Token;
use super::{loc, svcb};
use crate::name::{Name, unescape};
use crate::rtype;

/// RDATA is at most what its length field can say.
const MAX_RDATA_BYTES: usize = 65_535;

/// One field of a type's RDATA.
#[derive(Clone, Copy)]
enum Field {
    U8,
    U16,
    U32,
    /// 32 bits, written with units (`1h`) or without.
    Time,
    Name,
    V4,
    V6,
    /// One character-string.
    Text,
    /// Character-strings to the end, at least one.
    Texts,
    /// One string without a length octet, to the end.
    LongText,
    /// A property tag: length octet, then letters and digits.
    Tag,
    /// The same, but there may be none (RFC 3403 §4.1).
    Flags,
    /// Hexadecimal digits to the end, spaces allowed.
    Hex,
    /// Base 64 to the end, spaces allowed.
    Base64,
    /// Type mnemonics to the end, as a bitmap (RFC 4034 §4.1.2).
    Types,
    /// Service parameters (RFC 9460).
    SvcParams,
    /// A place on Earth (RFC 1876).
    Place,
    /// Octets in hexadecimal, this many, with this character between groups of this many digits.
    Groups(usize, u8, usize),
}

fn fields(rtype: u16) -> Option<&'static [Field]> {
    use Field::*;
    Some(match rtype {
        rtype::A => &[V4],
        rtype::AAAA => &[V6],
        rtype::NS | rtype::CNAME | rtype::DNAME | rtype::ALIAS | 7..=9 | 12 => &[Name],
        rtype::SOA => &[Name, Name, U32, Time, Time, Time, Time],
        13 => &[Text, Text],
        rtype::MX | 18 | 21 | 36 | 107 => &[U16, Name],
        rtype::TXT | 20 | 56 | 99 | 258 | 261 | 262 => &[Texts],
        14 | 17 => &[Name, Name],
        19 => &[Text],
        25 => &[U16, U8, U8, Base64],
        26 => &[U16, Name, Name],
        27 => &[Text, Text, Text],
        29 => &[Place],
        rtype::SRV => &[U16, U16, U16, Name],
        35 => &[U16, U16, Flags, Text, Text, Name],
        37 => &[U16, U16, U8, Base64],
        rtype::DS | 59 | 32_768 | 32_769 => &[U16, U8, U8, Hex],
        44 => &[U8, U8, Hex],
        48 | 60 => &[U16, U8, U8, Base64],
        52 | 53 => &[U8, U8, U8, Hex],
        49 | 61 => &[Base64],
        62 => &[U32, U16, Types],
        63 => &[U32, U8, U8, Hex],
        rtype::SVCB | rtype::HTTPS => &[U16, Name, SvcParams],
        104 | 106 => &[U16, Groups(8, b':', 4)],
        105 => &[U16, V4],
        108 => &[Groups(6, b'-', 2)],
        109 => &[Groups(8, b'-', 2)],
        256 => &[U16, U16, LongText],
        257 => &[U8, Tag, LongText],
        _ => return None,
    })
}

/// Reads the RDATA of `rtype`; relative names are completed by `origin`.
pub(super) fn parse(
    rtype: u16,
    tokens: &[Token<'_>],
    origin: Option<&Name>,
) -> Result<Vec<u8>, String> {
    let shown = rtype::Shown(rtype);
    match rtype {
        rtype::RRSIG | rtype::NSEC | rtype::NSEC3 | rtype::NSEC3PARAM => {
            return Err(format!(
                "{shown} belongs to a signed zone, which is not served: leave the zone unsigned"
            ));
        }
        0 | rtype::OPT | 128..=255 => {
            return Err(format!("{shown} is not a type that zones hold"));
        }
        _ => {}
    }
    if let Some((first, rest)) = tokens.split_first()
        && first.text == br"\#"
        && !first.quoted
    {
        if rtype == rtype::ALIAS {
            return Err("an ALIAS is written as `ALIAS NAME`".to_owned());
        }
        return parse_generic(rtype, rest).map_err(|why| format!("{shown}: {why}"));
    }
    let Some(fields) = fields(rtype) else {
        return Err(format!(
            "{shown} has no text form here: write it as `TYPE{rtype} \\# LENGTH HEX`"
        ));
    };
    let mut tokens = tokens.iter();
    let mut rdata = Vec::new();
    for field in fields {
        parse_field(*field, &mut tokens, origin, &mut rdata)
            .map_err(|why| format!("{shown}: {why}"))?;
    }
    if let Some(extra) = tokens.next() {
        return Err(format!("{shown}: `{}` is one field too many", extra.shown()));
    }
    if rdata.len() > MAX_RDATA_BYTES {
        return Err(format!("{shown}: more than {MAX_RDATA_BYTES} octets"));
    }
    Ok(rdata)
}

/// RFC 3597 §5: `\# LENGTH HEX`. Types known here must decode as what they claim to be.
fn parse_generic(rtype: u16, tokens: &[Token<'_>]) -> Result<Vec<u8>, String> {
    let mut tokens = tokens.iter();
    let length: usize =
        number(next(&mut tokens, "the length")?, "a length in octets").map(usize::from)?;
    let digits: Vec<u8> = tokens.flat_map(|token| token.text.iter().copied()).collect();
    let rdata = if digits.is_empty() { Vec::new() } else { hex(&digits)? };
    if rdata.len() != length {
        return Err(format!("{} octets follow where {length} are announced", rdata.len()));
    }
    if fields(rtype).is_some() && !decodes(rtype, &rdata) {
        return Err("these octets are not valid RDATA of this type".to_owned());
    }
    Ok(rdata)
}

/// Whether hickory-proto, which knows these types too, takes `rdata` for one.
fn decodes(rtype: u16, rdata: &[u8]) -> bool {
    use hickory_proto::rr::{RData, RecordType};
    use hickory_proto::serialize::binary::{BinDecoder, Restrict};
    let Ok(length) = u16::try_from(rdata.len()) else { return false };
    let mut decoder = BinDecoder::new(rdata);
    RData::read(&mut decoder, RecordType::from(rtype), Restrict::new(length)).is_ok()
}

fn parse_field(
    field: Field,
    tokens: &mut std::slice::Iter<'_, Token<'_>>,
    origin: Option<&Name>,
    rdata: &mut Vec<u8>,
) -> Result<(), String> {
    match field {
        Field::U8 => {
            let value = number(next(tokens, "a number")?, "a number up to 255")?;
            rdata.push(u8::try_from(value).map_err(|_| format!("{value} is more than 255"))?);
        }
        Field::U16 => {
            let value = number(next(tokens, "a number")?, "a number up to 65535")?;
            rdata.extend(value.to_be_bytes());
        }
        Field::U32 => {
            let token = next(tokens, "a number")?;
            let value: Option<u32> = token.as_str().and_then(|text| text.parse().ok());
            let value = value
                .ok_or_else(|| format!("`{}` is not a number up to 4294967295", token.shown()))?;
            rdata.extend(value.to_be_bytes());
        }
        Field::Time => {
            let token = next(tokens, "a time in seconds")?;
            let value = token.as_str().and_then(parse_time).ok_or_else(|| {
                format!("`{}` is not a time: write `3600` or `1h`", token.shown())
            })?;
            rdata.extend(value.to_be_bytes());
        }
        Field::Name => {
            let token = next(tokens, "a name")?;
            if token.quoted {
                return Err(format!("the name `{}` stands in quotes", token.shown()));
            }
            rdata.extend_from_slice(Name::parse(token.text, origin)?.as_wire());
        }
        Field::V4 => {
            let token = next(tokens, "an IPv4 address")?;
            let address: Option<Ipv4Addr> = token.as_str().and_then(|text| text.parse().ok());
            let address =
                address.ok_or_else(|| format!("`{}` is not an IPv4 address", token.shown()))?;
            rdata.extend(address.octets());
        }
        Field::V6 => {
            let token = next(tokens, "an IPv6 address")?;
            let address: Option<Ipv6Addr> = token.as_str().and_then(|text| text.parse().ok());
            let address =
                address.ok_or_else(|| format!("`{}` is not an IPv6 address", token.shown()))?;
            rdata.extend(address.octets());
        }
        Field::Text => push_text(rdata, &unescaped(next(tokens, "a text")?)?)?,
        Field::Texts => {
            push_text(rdata, &unescaped(next(tokens, "a text")?)?)?;
            for token in tokens.by_ref() {
                push_text(rdata, &unescaped(token)?)?;
            }
        }
        Field::LongText => rdata.extend(unescaped(next(tokens, "a text")?)?),
        Field::Tag | Field::Flags => {
            let token = next(tokens, "letters or digits")?;
            let is_missing = token.text.is_empty() && matches!(field, Field::Tag);
            if is_missing || !token.text.iter().all(u8::is_ascii_alphanumeric) {
                return Err(format!("`{}` is not letters and digits only", token.shown()));
            }
            push_text(rdata, token.text)?;
        }
        Field::Hex => rdata.extend(hex(&rest(tokens, "hexadecimal digits")?)?),
        Field::Base64 => rdata.extend(base64(&rest(tokens, "base 64")?)?),
        Field::Types => {
            let mut types = Vec::new();
            for token in tokens.by_ref() {
                let rtype = token.as_str().and_then(rtype::parse);
                types.push(rtype.ok_or_else(|| format!("`{}` is not a type", token.shown()))?);
            }
            push_bitmap(rdata, types);
        }
        Field::Place => {
            rdata.extend(loc::parse(tokens.as_slice())?);
            *tokens = [].iter();
        }
        Field::Groups(octets, between, digits) => {
            let token = next(tokens, "hexadecimal digits")?;
            let groups: Vec<&[u8]> = token.text.split(|octet| *octet == between).collect();
            let whole =
                groups.iter().all(|group| group.len() == digits).then(|| hex(&groups.concat()));
            let whole = whole.and_then(Result::ok).filter(|whole| whole.len() == octets);
            let between = char::from(between);
            rdata.extend(whole.ok_or_else(|| {
                format!(
                    "`{}` is not {octets} octets in groups of {digits} digits with `{between}` between them",
                    token.shown()
                )
            })?);
        }
        Field::SvcParams => {
            rdata.extend(svcb::parse_params(tokens.as_slice())?);
            *tokens = [].iter();
        }
    }
    Ok(())
}

fn next<'t, 'a>(
    tokens: &mut std::slice::Iter<'t, Token<'a>>,
    what: &str,
) -> Result<&'t Token<'a>, String> {
    tokens.next().ok_or_else(|| format!("{what} is missing"))
}

fn rest(tokens: &mut std::slice::Iter<'_, Token<'_>>, what: &str) -> Result<Vec<u8>, String> {
    let mut octets = next(tokens, what)?.text.to_vec();
    octets.extend(tokens.flat_map(|token| token.text.iter().copied()));
    Ok(octets)
}

fn number(token: &Token<'_>, what: &str) -> Result<u16, String> {
    let digits = token.as_str().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let value = digits.and_then(|text| text.parse().ok());
    value.ok_or_else(|| format!("`{}` is not {what}", token.shown()))
}

/// Seconds: `3600`, `1h`, `1h30m`. At most 2^31 − 1 (RFC 2181 §8).
pub(super) fn parse_time(text: &str) -> Option<u32> {
    let mut total: u32 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: u32 = number.parse().ok()?;
        let mut after = after.chars();
        let factor = match after.next().map(|c| c.to_ascii_lowercase()) {
            None if rest.len() == text.len() => 1,
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = after.as_str();
    }
    (!text.is_empty() && total <= i32::MAX.cast_unsigned()).then_some(total)
}

/// A token's octets with its escapes resolved.
pub(super) fn unescaped(token: &Token<'_>) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(token.text.len());
    let mut rest = token.text.iter().copied();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'\\' => unescape(&mut rest)
                .ok_or_else(|| format!("`{}` has a broken escape", token.shown()))?,
            plain => plain,
        });
    }
    Ok(octets)
}

fn push_text(rdata: &mut Vec<u8>, text: &[u8]) -> Result<(), String> {
    let length = u8::try_from(text.len()).map_err(|_| {
        format!("a text has {} octets: write it as several of at most 255", text.len())
    })?;
    rdata.push(length);
    rdata.extend_from_slice(text);
    Ok(())
}

fn push_bitmap(rdata: &mut Vec<u8>, mut types: Vec<u16>) {
    types.sort_unstable();
    types.dedup();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; 32];
        let mut used = 0;
        for rtype in window {
            let [_, low] = rtype.to_be_bytes();
            if let Some(octet) = bits.get_mut(usize::from(low / 8)) {
                *octet |= 0x80 >> (low % 8);
            }
            used = low / 8 + 1;
        }
        rdata.extend(window.first().map(|rtype| rtype.to_be_bytes()[0]));
        rdata.push(used);
        rdata.extend(bits.iter().take(usize::from(used)));
    }
}

fn hex(digits: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "write pairs of hexadecimal digits".to_owned();
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
    let (pairs, left) = digits.as_chunks::<2>();
    if pairs.is_empty() || !left.is_empty() {
        return Err(wrong());
    }
    let octet = |[high, low]: &[u8; 2]| Some(value(*high)? << 4 | value(*low)?);
    pairs.iter().map(octet).collect::<Option<_>>().ok_or_else(wrong)
}

/// Base 64 with padding (RFC 4648 §4).
pub(super) fn base64(digits: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "this is not base 64".to_owned();
    let value = |digit: u8| {
        Some(u32::from(match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }))
    };
    let (quads, left) = digits.as_chunks::<4>();
    let Some((last, whole)) = quads.split_last().filter(|_| left.is_empty()) else {
        return Err(wrong());
    };
    let mut octets = Vec::with_capacity(quads.len() * 3);
    for quad in whole {
        let mut bits = 0;
        for digit in quad {
            bits = bits << 6 | value(*digit).ok_or_else(wrong)?;
        }
        octets.extend(bits.to_be_bytes().iter().skip(1));
    }
    let padding = last.iter().rev().take_while(|digit| **digit == b'=').count();
    let mut bits = 0;
    for (index, digit) in last.iter().enumerate() {
        let six = if index + padding >= 4 { Some(0) } else { value(*digit) };
        bits = bits << 6 | six.ok_or_else(wrong)?;
    }
    let [_, tail @ ..] = bits.to_be_bytes();
    let (kept, cut) = tail.split_at_checked(3_usize.saturating_sub(padding)).ok_or_else(wrong)?;
    if padding > 2 || cut.iter().any(|octet| *octet != 0) {
        return Err(wrong());
    }
    octets.extend(kept);
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{RData, RecordType};
    use hickory_proto::serialize::binary::{BinDecoder, Restrict};

    use super::*;
    use crate::zone::file::tokens_of;

    fn rdata(rtype: &str, text: &str) -> Result<Vec<u8>, String> {
        let origin = Name::parse_absolute("cdn.test").unwrap();
        parse(rtype::parse(rtype).unwrap(), &tokens_of(text), Some(&origin))
    }

    /// What hickory-proto makes of our octets, in its own text.
    fn read_back(rtype: &str, text: &str) -> String {
        let octets = rdata(rtype, text).unwrap_or_else(|why| panic!("{rtype} {text}: {why}"));
        let length = Restrict::new(u16::try_from(octets.len()).unwrap());
        let rtype = RecordType::from(rtype::parse(rtype).unwrap());
        RData::read(&mut BinDecoder::new(&octets), rtype, length).unwrap().to_string()
    }

    #[test]
    fn types_read_as_hickory_proto_reads_them() {
        for (rtype, text, expected) in [
            ("A", "192.0.2.1", "192.0.2.1"),
            ("AAAA", "2001:db8::1", "2001:db8::1"),
            ("NS", "ns1", "ns1.cdn.test."),
            ("CNAME", "a.other.", "a.other."),
            ("MX", "10 mail", "10 mail.cdn.test."),
            ("SRV", "1 2 443 _x.www", "1 2 443 _x.www.cdn.test."),
            (
                "SOA",
                "ns1 host 7 1h 10m 2w 60",
                "ns1.cdn.test. host.cdn.test. 7 3600 600 1209600 60",
            ),
            ("SSHFP", "4 2 ABCD 1234", "4 2 abcd1234"),
            ("TLSA", "3 1 1 abcd", "3 1 1 abcd"),
        ] {
            assert_eq!(read_back(rtype, text), expected, "{rtype}");
        }
        for (rtype, text) in [
            ("NAPTR", r#"100 50 "s" "http" "" _http._tcp"#),
            ("HINFO", r#"PC "Linux 6""#),
            ("CAA", r#"0 issue "ca.test; policy=ev""#),
            ("CERT", "1 2 3 AQID"),
            ("OPENPGPKEY", "AQIDBA=="),
            ("CSYNC", "66 3 A NS AAAA"),
            ("HTTPS", "1 . alpn=h2,h3 ipv4hint=192.0.2.1 port=8443"),
            ("SVCB", "0 svc.other."),
        ] {
            assert!(!read_back(rtype, text).is_empty(), "{rtype}");
        }
    }

    #[test]
    fn types_that_hickory_proto_does_not_know_have_their_octets() {
        for (rtype, text, expected) in [
            ("KX", "10 kx", b"\0\x0a\x02kx\x03cdn\x04test\0".as_slice()),
            ("RT", "5 relay.other.", b"\0\x05\x05relay\x05other\0"),
            ("X25", "311061700956", b"\x0c311061700956"),
            ("MINFO", "a. b.", b"\x01a\0\x01b\0"),
            ("NID", "10 0014:4fff:ff20:ee64", b"\0\x0a\x00\x14\x4f\xff\xff\x20\xee\x64"),
            ("L32", "10 10.1.2.0", b"\0\x0a\x0a\x01\x02\x00"),
            ("EUI48", "00-00-5e-00-53-2a", b"\x00\x00\x5e\x00\x53\x2a"),
            ("EUI64", "00-00-5e-ef-10-00-00-2a", b"\x00\x00\x5e\xef\x10\x00\x00\x2a"),
            ("RESINFO", "qnamemin exterr=15-17", b"\x08qnamemin\x0cexterr=15-17"),
            ("DHCID", "AAIBY2/A", b"\x00\x02\x01\x63\x6f\xc0"),
        ] {
            assert_eq!(rdata(rtype, text).as_deref(), Ok(expected), "{rtype}");
        }
    }

    #[test]
    fn texts_keep_their_octets_rfc_1035_section_5_1() {
        assert_eq!(
            rdata("TXT", r#""a \"b\" \\ \059\255" plain "#).unwrap(),
            b"\x0aa \"b\" \\ ;\xff\x05plain"
        );
        assert_eq!(rdata("TXT", r#""""#).unwrap(), b"\0");
        assert!(rdata("TXT", &"x".repeat(256)).unwrap_err().contains("several"));
        assert!(rdata("TXT", "").is_err());
    }

    #[test]
    fn unknown_types_are_written_as_octets_rfc_3597_section_5() {
        assert_eq!(rdata("TYPE62347", r"\# 3 ab CD ef").unwrap(), [0xab, 0xcd, 0xef]);
        assert!(rdata("TYPE62347", r"\# 0").unwrap().is_empty());
        assert_eq!(rdata("A", r"\# 4 c0000201").unwrap(), [192, 0, 2, 1]);
        for (rtype, text) in [
            ("TYPE62347", r"\# 2 abcdef"),
            ("TYPE62347", r"\# 2 abc"),
            ("TYPE62347", r"\# 1"),
            ("TYPE62347", "abc"),
            ("A", r"\# 3 c00002"),
            ("NS", r"\# 2 0161"),
        ] {
            assert!(rdata(rtype, text).is_err(), "{rtype} {text}");
        }
    }

    /// Appendix D.1 and D.2: whole RDATA, priority and target in front.
    #[test]
    fn the_vectors_of_rfc_9460_appendix_d() {
        let target = b"\x03foo\x07example\x03com\0";
        for (rtype, text, head, tail) in [
            ("HTTPS", "0 foo.example.com.", b"\0\0".as_slice(), b"".as_slice()),
            ("SVCB", "16 foo.example.com. port=53", b"\0\x10", b"\0\x03\0\x02\0\x35"),
            ("SVCB", "1 foo.example.com. key667=hello", b"\0\x01", b"\x02\x9b\0\x05hello"),
            (
                "SVCB",
                r#"1 foo.example.com. ( key667="hello\210qoo" )"#,
                b"\0\x01",
                b"\x02\x9b\0\x09hello\xd2qoo",
            ),
            (
                "SVCB",
                "16 foo.example.com. ( alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1 )",
                b"\0\x10",
                b"\0\0\0\x04\0\x01\0\x04\0\x01\0\x09\x02h2\x05h3-19\0\x04\0\x04\xc0\0\x02\x01",
            ),
        ] {
            let expected = [head, target, tail].concat();
            assert_eq!(rdata(rtype, text).unwrap(), expected, "{text}");
            assert!(decodes(rtype::parse(rtype).unwrap(), &expected), "{text}");
        }
        assert_eq!(rdata("SVCB", "1 .").unwrap(), b"\0\x01\0");
    }

    #[test]
    fn wrong_fields_are_named() {
        for (rtype, text, part) in [
            ("A", "192.0.2", "not an IPv4 address"),
            ("A", "192.0.2.1 192.0.2.2", "one field too many"),
            ("AAAA", "", "missing"),
            ("MX", "mail 10", "not a number up to 65535"),
            ("MX", "70000 mail", "not a number up to 65535"),
            ("SSHFP", "300 1 aa", "more than 255"),
            ("SOA", "ns1 host 1 2 3 4", "missing"),
            ("SOA", "ns1 host 1 2 3 4 5y", "not a time"),
            ("NS", "a..b", "empty label"),
            ("NS", "\"ns1\"", "quotes"),
            ("TLSA", "3 1 1 xyz", "hexadecimal"),
            ("CERT", "1 2 3 AQ=D", "base 64"),
            ("LOC", "51 N", "E or W is missing"),
            ("EUI48", "00-00-5e-00-53", "6 octets"),
            ("NID", "10 14:4fff:ff20:ee64", "8 octets"),
            ("APL", "1:192.0.2.0/24", r"\# LENGTH HEX"),
            ("RRSIG", "A 8 2", "signed zone"),
            ("ANY", "x", "not a type that zones hold"),
        ] {
            let why = rdata(rtype, text).unwrap_err();
            assert!(why.contains(part), "{rtype} {text}: {why}");
        }
    }

    #[test]
    fn times_have_units_or_none() {
        for (text, expected) in [
            ("0", Some(0)),
            ("3600", Some(3600)),
            ("1h30m", Some(5400)),
            ("1W", Some(604_800)),
            ("", None),
            ("1h30", None),
            ("h", None),
            ("2147483648", None),
            ("99999w", None),
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }

    #[test]
    fn base_64_is_exact() {
        assert_eq!(base64(b"TWFu").unwrap(), b"Man");
        assert_eq!(base64(b"TWE=").unwrap(), b"Ma");
        assert_eq!(base64(b"TQ==").unwrap(), b"M");
        for bad in ["", "TQ", "TQ=", "T===", "====", "TR==", "TQ==TQ==", "TQ=A", "T!Fu"] {
            assert!(base64(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        /// Whatever text is taken, the octets are RDATA to hickory-proto, too.
        #[test]
        fn what_is_taken_decodes(
            rtype in proptest::sample::select(vec!["A", "AAAA", "NS", "SOA", "MX", "TXT", "SRV", "HINFO", "NAPTR", "SSHFP", "TLSA", "SVCB", "HTTPS"]),
            words in proptest::collection::vec("[0-9]{1,3}|[a-z.]{1,9}|192\\.0\\.2\\.1|\"[ -!#-~&&[^\\\\]]{0,9}\"|alpn=h2|port=1|::1|@", 0..8),
        ) {
            let text = words.join(" ");
            if let Ok(octets) = rdata(rtype, &text) {
                proptest::prop_assert!(decodes(rtype::parse(rtype).unwrap(), &octets), "{rtype} {text}");
            }
        }
    }
}
