//! The common and combined log formats, as nginx, Apache and varnishncsa write them:
//! `[HOST[:PORT] ]CLIENT IDENT USER [TIME] "METHOD TARGET VERSION" STATUS BYTES "REFERER" "AGENT" …`
//!
//! The virtual host in front is Apache's `%v:%p` (`vhost_combined`); varnishncsa has the host in the target. What comes
//! after the agent is a user's own: of it, a word by which a cache says what it did is read (nginx's
//! `$upstream_cache_status`).

use std::borrow::Cow;

use super::{Handling, Raw, bytes, cut, status, target, when};

/// A line, or what is wrong with it.
pub fn parse(line: &str) -> Result<Raw<'_>, String> {
    let (front, rest) = line.split_once('[').ok_or("it has no time in brackets")?;
    let (time, rest) = rest.split_once(']').ok_or("its time has no end")?;
    let at = when::common(time)
        .or_else(|| when::rfc3339(time))
        .ok_or_else(|| format!("`{}` is no time", cut(time)))?;
    let rest = rest.trim_start().strip_prefix('"').ok_or("it has no request in quotes")?;
    let (request, rest) = quoted(rest).ok_or("its request has no end")?;
    let mut after = rest.split_ascii_whitespace();
    let status = status(after.next().ok_or("it has no status")?)?;
    let size = bytes(after.next().ok_or("it has no bytes")?)?;
    let handling = handling(rest);
    let (method, uri) = match words(&request) {
        Ok(words) => words,
        // What came was no request, and the server said so: `"-" 400 0`.
        Err(_) if status >= 400 => ("-", "-"),
        Err(why) => return Err(why),
    };
    let (host, path) = match uri {
        // Nothing that a cache answers: OPTIONS, CONNECT.
        uri if !method.eq_ignore_ascii_case("GET") && !method.eq_ignore_ascii_case("HEAD") => {
            (None, uri)
        }
        uri => target(uri)?,
    };
    let host = host.or_else(|| virtual_host(front)).unwrap_or_default().to_ascii_lowercase();
    Ok(Raw {
        at,
        host: Cow::Owned(host),
        target: Cow::Owned(path.to_owned()),
        method: Cow::Owned(method.to_owned()),
        status: Some(status),
        size,
        handling,
    })
}

/// The text up to the closing quote, and the rest. A backslash keeps a quote from closing: `\"`, `\x22`.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    let (inside, rest) = text.split_at_checked(end)?;
    Some((unescaped(inside), rest.get(1..)?))
}

/// Apache and nginx write `\"`, `\\` and `\xHH` for what would break the line.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let mut ahead = bytes.clone();
        let digits = (ahead.next(), ahead.next(), ahead.next());
        match digits {
            (Some(b'x'), Some(high), Some(low))
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                out.push(hex(high) << 4 | hex(low));
                bytes = ahead;
            }
            _ => out.extend(bytes.next()),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10) & 15,
    }
}

/// Method and target of a request line. HTTP/0.9's has no version; what a scanner sent as one may be anything.
pub(super) fn words(request: &str) -> Result<(&str, &str), String> {
    let (method, rest) =
        request.split_once(' ').ok_or_else(|| format!("`{}` is no request", cut(request)))?;
    let uri = match rest.rsplit_once(' ') {
        Some((uri, version)) if version.starts_with("HTTP/") => uri,
        _ => rest,
    };
    match method.is_empty() || uri.trim().is_empty() {
        true => Err(format!("`{}` is no request", cut(request))),
        false => Ok((method, uri.trim())),
    }
}

/// The word before the client: four words and more in front of the time, the second of which is an address, or the first
/// of which has a port.
fn virtual_host(front: &str) -> Option<&str> {
    let mut words = front.split_ascii_whitespace();
    let (first, second) = (words.next()?, words.next()?);
    let is_host = words.count() >= 2 && second.parse::<std::net::IpAddr>().is_ok();
    let (name, port) = first.rsplit_once(':').unwrap_or((first, ""));
    let has_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_host || (has_port && !name.contains(':')) {
        // The port that it listened on makes no other object.
        return Some(if has_port { name } else { first });
    }
    None
}

/// What a cache says of the request, somewhere behind the two quoted fields or, without them, the bytes.
fn handling(rest: &str) -> Handling {
    let tail = match rest.match_indices('"').nth(3) {
        Some((at, _)) => rest.get(at + 1..).unwrap_or_default(),
        None if !rest.contains('"') => rest,
        None => return Handling::Unknown,
    };
    tail.split_ascii_whitespace()
        .map(|word| word.rsplit('=').next().unwrap_or(word).trim_matches('"'))
        // The words of caches are in capitals here, or varnishncsa's `hit` and `miss`.
        .filter(|word| {
            word.bytes().all(|byte| !byte.is_ascii_lowercase())
                || matches!(*word, "hit" | "miss" | "pass")
        })
        .map(Handling::of)
        .find(|handling| *handling != Handling::Unknown)
        .unwrap_or_default()
}
