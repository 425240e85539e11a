//! Surrogate-Control and Surrogate-Capability (Edge Architecture Specification, W3C Note of 2001), as far as caches still
//! use them: `no-store`, `max-age=N`, `max-age=N+M`, and directives for one surrogate (`max-age=60;meridian`).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::cache_control::{CacheControl, delta_seconds, is_token_byte};

/// Surrogate-Control.
pub static SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
static SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");

/// The name by which directives are meant for us.
const TARGET: &[u8] = b"meridian";
/// What we say that we can do; nodes of both tiers are one surrogate.
const CAPABILITY: HeaderValue = HeaderValue::from_static("meridian=\"Surrogate/1.0\"");

/// Tells the origin that we read the field.
pub fn announce(request: &mut HeaderMap) {
    request.insert(&SURROGATE_CAPABILITY, CAPABILITY);
}

/// The directives that are meant for us; `None` when no known one is. Those that name us win over those that name nobody,
/// those that name others do not count. What is no number of seconds is 0, as in Cache-Control.
pub fn directives(response: &HeaderMap) -> Option<CacheControl> {
    let mut general = Directives::default();
    let mut ours = Directives::default();
    for line in response.get_all(&SURROGATE_CONTROL) {
        for member in split_unquoted(line.as_bytes(), b',') {
            let mut parts = split_unquoted(member, b';').map(<[u8]>::trim_ascii);
            let directive = parts.next().unwrap_or_default();
            let mut targets = parts.filter(|target| !target.is_empty()).peekable();
            if targets.peek().is_none() {
                general.add(directive);
            } else if targets.any(|target| target.eq_ignore_ascii_case(TARGET)) {
                ours.add(directive);
            }
        }
    }
    // A lifetime and a prohibition speak of the same thing: what names us decides both.
    let chosen = if ours.any() { ours } else { general };
    chosen.any().then(|| CacheControl {
        present: true,
        no_store: chosen.no_store,
        max_age: chosen.max_age,
        stale_while_revalidate: chosen.extension,
        ..CacheControl::default()
    })
}

#[derive(Clone, Copy, Default)]
struct Directives {
    no_store: bool,
    max_age: Option<u32>,
    /// `M` of `max-age=N+M`: how long beyond N it may be used stale.
    extension: Option<u32>,
}

impl Directives {
    const fn any(&self) -> bool {
        self.no_store || self.max_age.is_some()
    }

    fn add(&mut self, directive: &[u8]) {
        let length = directive.iter().take_while(|b| is_token_byte(**b)).count();
        let (name, argument) = directive.split_at(length);
        if name.eq_ignore_ascii_case(b"no-store") {
            self.no_store = true;
        } else if name.eq_ignore_ascii_case(b"max-age") {
            let value = argument.strip_prefix(b"=").unwrap_or_default();
            let value =
                value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
            let (seconds, extension) = match value.iter().position(|b| *b == b'+') {
                Some(plus) => (&value[..plus], delta_seconds(&value[plus + 1..])),
                None => (value, None),
            };
            let seconds = delta_seconds(seconds).unwrap_or(0);
            // Of two lifetimes the shorter.
            if self.max_age.is_none_or(|known| seconds < known) {
                (self.max_age, self.extension) = (Some(seconds), extension);
            }
        }
    }
}

/// Pieces between separators that stand in no quotes.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => return !quoted && *b == separator,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&str]) -> Option<(bool, Option<u32>, Option<u32>)> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&SURROGATE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        directives(&headers).map(|cc| (cc.no_store, cc.max_age, cc.stale_while_revalidate))
    }

    #[test]
    fn edge_architecture_2_surrogate_control() {
        let age = |seconds| Some((false, Some(seconds), None));
        for (lines, expected) in [
            (&["max-age=60"][..], age(60)),
            (&["MAX-AGE=60"], age(60)),
            (&["max-age=\"60\""], age(60)),
            (&["max-age=60, content=\"ESI/1.0\""], age(60)),
            (&["max-age=60+30"], Some((false, Some(60), Some(30)))),
            (&["max-age=60+x"], age(60)),
            (&["max-age=99999999999"], age(1 << 31)),
            (&["max-age=x"], age(0)),
            (&["max-age"], age(0)),
            (&["max-age =60"], age(0)),
            (&["max-age=60", "max-age=30"], age(30)),
            (&["no-store"], Some((true, None, None))),
            (&["no-store, max-age=60"], Some((true, Some(60), None))),
            (&["max-age=60;meridian"], age(60)),
            (&["max-age=60; meridian, max-age=5"], age(60)),
            (&["no-store, max-age=60;meridian"], age(60)),
            (&["max-age=60;others"], None),
            (&["max-age=60;others, max-age=5"], age(5)),
            (&["max-age=60;others;meridian"], age(60)),
            (&["content=\"a, max-age=60\""], None),
            (&["foo"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(read(lines), expected, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(&SURROGATE_CONTROL, value);
                let _ = directives(&headers);
            }
        }
    }
}
