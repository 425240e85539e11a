//! Service parameters of SVCB and HTTPS records (RFC 9460), text to wire form.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::file::Token;
use super::rdata::{base64, unescaped};

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;

const KEYS: &[(&str, u16)] = &[
    ("mandatory", MANDATORY),
    ("alpn", ALPN),
    ("no-default-alpn", NO_DEFAULT_ALPN),
    ("port", 3),
    ("ipv4hint", 4),
    ("ech", 5),
    ("ipv6hint", 6),
    ("dohpath", 7),
    ("ohttp", 8),
];

/// Reads `key=value` and `key` tokens. The wire form has each key once, in ascending order (§2.2).
pub(super) fn parse_params(tokens: &[Token<'_>]) -> Result<Vec<u8>, String> {
    let mut params = BTreeMap::new();
    let mut tokens = tokens.iter().peekable();
    while let Some(token) = tokens.next() {
        let text = token.text;
        let (key, value) = match text.iter().position(|octet| *octet == b'=') {
            // `key="value"`: the tokenizer ends a token where quotes begin.
            Some(at) if at + 1 == text.len() && tokens.peek().is_some_and(|next| next.joined) => {
                (text.get(..at), tokens.next().map(|quoted| quoted.text))
            }
            Some(at) => (text.get(..at), text.get(at + 1..)),
            None => (Some(text), None),
        };
        let key_text = key.map(String::from_utf8_lossy).unwrap_or_default();
        let key = parse_key(&key_text).ok_or_else(|| {
            format!("`{key_text}` is not a service parameter: write `alpn=…` or `key65000=…`")
        })?;
        let value = value.map(|text| unescaped(&Token { text, ..*token })).transpose()?;
        let wire =
            parse_value(key, value.as_deref()).map_err(|why| format!("`{key_text}`: {why}"))?;
        if params.insert(key, wire).is_some() {
            return Err(format!("`{key_text}` stands twice"));
        }
    }
    check_consistency(&params)?;
    let mut wire = Vec::new();
    for (key, value) in params {
        let length = u16::try_from(value.len()).map_err(|_| "too long a value".to_owned())?;
        wire.extend(key.to_be_bytes());
        wire.extend(length.to_be_bytes());
        wire.extend(value);
    }
    Ok(wire)
}

fn parse_key(text: &str) -> Option<u16> {
    if let Some((_, number)) = KEYS.iter().find(|(name, _)| *name == text) {
        return Some(*number);
    }
    let digits = text.strip_prefix("key")?;
    let plain = digits.bytes().all(|octet| octet.is_ascii_digit());
    (plain && (digits == "0" || !digits.starts_with('0')))
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|key| *key != u16::MAX)
}

fn parse_value(key: u16, value: Option<&[u8]>) -> Result<Vec<u8>, String> {
    let needed =
        || value.filter(|value| !value.is_empty()).ok_or_else(|| "a value is missing".to_owned());
    let text = || std::str::from_utf8(needed()?).map_err(|_| "this is not text".to_owned());
    let mut wire = Vec::new();
    match key {
        MANDATORY => {
            let mut keys = Vec::new();
            for item in text()?.split(',') {
                let key = parse_key(item).ok_or_else(|| format!("`{item}` is not a key"))?;
                keys.push(key);
            }
            keys.sort_unstable();
            if keys.contains(&MANDATORY) || keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err("list each key once, and not `mandatory` itself".to_owned());
            }
            wire.extend(keys.iter().flat_map(|key| key.to_be_bytes()));
        }
        ALPN => {
            for id in split_list(needed()?) {
                let length = u8::try_from(id.len()).ok().filter(|length| *length > 0);
                wire.push(length.ok_or_else(|| "a protocol has 1 to 255 octets".to_owned())?);
                wire.extend(id);
            }
        }
        NO_DEFAULT_ALPN | 8 => {
            if value.is_some_and(|value| !value.is_empty()) {
                return Err("takes no value".to_owned());
            }
        }
        3 => {
            let port: u16 = text()?.parse().map_err(|_| "this is not a port".to_owned())?;
            wire.extend(port.to_be_bytes());
        }
        4 => {
            for item in text()?.split(',') {
                let address: Ipv4Addr =
                    item.parse().map_err(|_| format!("`{item}` is not an IPv4 address"))?;
                wire.extend(address.octets());
            }
        }
        5 => wire = base64(needed()?)?,
        6 => {
            for item in text()?.split(',') {
                let address: Ipv6Addr =
                    item.parse().map_err(|_| format!("`{item}` is not an IPv6 address"))?;
                wire.extend(address.octets());
            }
        }
        _ => wire.extend(value.unwrap_or_default()),
    }
    Ok(wire)
}

/// Items of a comma-separated list whose own commas are escaped (appendix A.1).
fn split_list(value: &[u8]) -> Vec<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut escaped = false;
    for &octet in value {
        match octet {
            b'\\' if !escaped => escaped = true,
            b',' if !escaped => items.push(Vec::new()),
            _ => {
                escaped = false;
                if let Some(item) = items.last_mut() {
                    item.push(octet);
                }
            }
        }
    }
    items
}

/// §2.4.3 and §8: what a client would have to discard.
fn check_consistency(params: &BTreeMap<u16, Vec<u8>>) -> Result<(), String> {
    if params.contains_key(&NO_DEFAULT_ALPN) && !params.contains_key(&ALPN) {
        return Err("`no-default-alpn` needs `alpn`".to_owned());
    }
    let listed = params.get(&MANDATORY).map_or(&[] as &[u8], Vec::as_slice);
    let (keys, _) = listed.as_chunks::<2>();
    match keys.iter().find(|key| !params.contains_key(&u16::from_be_bytes(**key))) {
        Some(key) => {
            Err(format!("`mandatory` lists key {}, which is not there", u16::from_be_bytes(*key)))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::file::tokens_of;

    fn params(text: &str) -> Result<Vec<u8>, String> {
        parse_params(&tokens_of(text))
    }

    /// The vectors of RFC 9460 appendix D.2, without priority and target.
    #[test]
    fn the_vectors_of_rfc_9460_appendix_d() {
        for (text, wire) in [
            ("", b"".as_slice()),
            ("port=53", b"\0\x03\0\x02\0\x35"),
            ("key667=hello", b"\x02\x9b\0\x05hello"),
            (r#"key667="hello\210qoo""#, b"\x02\x9b\0\x09hello\xd2qoo"),
            (
                r#"ipv6hint="2001:db8::1,2001:db8::53:1""#,
                b"\0\x06\0\x20\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x53\0\x01",
            ),
            (
                "alpn=h2,h3-19 mandatory=ipv4hint,alpn ipv4hint=192.0.2.1",
                b"\0\0\0\x04\0\x01\0\x04\0\x01\0\x09\x02h2\x05h3-19\0\x04\0\x04\xc0\0\x02\x01",
            ),
            (
                r#"alpn="f\\\\oo\\,bar,h2""#,
                b"\0\x01\0\x0c\x08f\\oo,bar\x02h2",
            ),
            (r"alpn=f\\\092oo\092,bar,h2", b"\0\x01\0\x0c\x08f\\oo,bar\x02h2"),
        ] {
            assert_eq!(params(text).as_deref(), Ok(wire), "{text}");
        }
    }

    #[test]
    fn the_failures_of_rfc_9460_appendix_d_3() {
        for text in [
            "key123=abc key123=def",
            "mandatory",
            "alpn",
            "port",
            "ipv4hint",
            "ipv6hint",
            "no-default-alpn=abc",
            "mandatory=key123",
            "mandatory=mandatory",
            "mandatory=key123,key123 key123=abc",
            "no-default-alpn",
            "key65535=x",
            "key01=x",
            "nope=x",
            "port=99999",
        ] {
            assert!(params(text).is_err(), "{text}");
        }
    }
}
