//! Cache-Control (RFC 9111 §5.2) of requests and responses, RFC 5861 and RFC 8246 directives with it.
//!
//! A directive is found by parsing, never by searching: `max-age` inside a quoted string is not one. Where a field
//! contradicts itself or breaks the syntax, the more careful reading wins, always the same one: of two lifetimes the
//! shorter; a lifetime that is no number is 0; a broken `no-store` still forbids; a broken `public` permits nothing.

use http::{HeaderMap, header};

/// RFC 9111 §1.2.2: what a number of seconds too large to hold becomes.
pub const DELTA_MAX: u32 = 1 << 31;

/// The argument of `max-stale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxStale {
    /// Without argument: however old.
    Any,
    /// Up to so many seconds.
    Seconds(u32),
}

/// The directives of a message, or of a targeted field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// There was at least one directive, known or not.
    pub present: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without field names.
    pub no_cache: bool,
    /// `no-cache="…"`: only those fields need validation, and are not stored.
    pub no_cache_fields: bool,
    /// `private` without field names.
    pub private: bool,
    /// `private="…"`: only those fields are not stored.
    pub private_fields: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`.
    pub max_age: Option<u32>,
    /// `s-maxage`.
    pub s_maxage: Option<u32>,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// `min-fresh`.
    pub min_fresh: Option<u32>,
    /// `max-stale`.
    pub max_stale: Option<MaxStale>,
}

impl CacheControl {
    /// From the Cache-Control lines of a message.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for directive in directives(line.as_bytes()) {
                all.add(&directive);
            }
        }
        all
    }

    fn add(&mut self, directive: &Directive<'_>) {
        self.present = true;
        let name = directive.name;
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // Forbidding directives count even when what follows them is broken; permitting ones do not.
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            *directive.fields_or(&mut self.no_cache_fields, &mut self.no_cache) = true;
        } else if is("private") {
            *directive.fields_or(&mut self.private_fields, &mut self.private) = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("no-transform") {
            self.no_transform = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("max-age") {
            shorter(&mut self.max_age, directive.seconds().unwrap_or(0));
        } else if is("s-maxage") {
            shorter(&mut self.s_maxage, directive.seconds().unwrap_or(0));
        } else if is("stale-while-revalidate") {
            shorter(&mut self.stale_while_revalidate, directive.seconds().unwrap_or(0));
        } else if is("stale-if-error") {
            shorter(&mut self.stale_if_error, directive.seconds().unwrap_or(0));
        } else if is("min-fresh") {
            if let Some(seconds) = directive.seconds() {
                self.min_fresh = Some(self.min_fresh.map_or(seconds, |other| other.max(seconds)));
            }
        } else if is("max-stale") && directive.whole {
            let new = match (directive.argument, directive.seconds()) {
                (None, _) => MaxStale::Any,
                (Some(_), Some(seconds)) => MaxStale::Seconds(seconds),
                (Some(_), None) => MaxStale::Seconds(0),
            };
            self.max_stale = match (self.max_stale, new) {
                (None | Some(MaxStale::Any), new) => Some(new),
                (old, MaxStale::Any) => old,
                (Some(MaxStale::Seconds(a)), MaxStale::Seconds(b)) => {
                    Some(MaxStale::Seconds(a.min(b)))
                }
            };
        } else if directive.whole {
            if is("public") {
                self.public = true;
            } else if is("must-understand") {
                self.must_understand = true;
            } else if is("immutable") {
                self.immutable = true;
            }
        }
    }
}

fn shorter(slot: &mut Option<u32>, seconds: u32) {
    *slot = Some(slot.map_or(seconds, |other| other.min(seconds)));
}

/// RFC 9111 §1.2.2: digits only; what is too large becomes [`DELTA_MAX`]. `None` when it is no number.
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = text
        .iter()
        .fold(0u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
    Some(value.min(DELTA_MAX))
}

/// Calls `f` with each field name that `no-cache="…"` or `private="…"` lists: these fields are not stored.
pub fn for_each_listed_field(headers: &HeaderMap, mut f: impl FnMut(&[u8])) {
    for line in headers.get_all(header::CACHE_CONTROL) {
        for directive in directives(line.as_bytes()) {
            let listing = directive.name.eq_ignore_ascii_case(b"no-cache")
                || directive.name.eq_ignore_ascii_case(b"private");
            if let (true, Some(argument)) = (listing, directive.argument) {
                argument
                    .split(|b| *b == b',')
                    .map(<[u8]>::trim_ascii)
                    .filter(|name| !name.is_empty())
                    .for_each(&mut f);
            }
        }
    }
}

/// One directive. Quotes are off the argument; escapes in it are left as they are (no known argument needs one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Directive<'a> {
    name: &'a [u8],
    argument: Option<&'a [u8]>,
    /// Nothing but the directive stood between its commas.
    whole: bool,
}

impl Directive<'_> {
    fn seconds(&self) -> Option<u32> {
        if self.whole { self.argument.and_then(delta_seconds) } else { None }
    }

    /// The flag of the form with field names when there are any, else that of the bare form.
    fn fields_or<'f>(&self, fields: &'f mut bool, bare: &'f mut bool) -> &'f mut bool {
        let named = self.whole
            && self.argument.is_some_and(|argument| argument.iter().any(|b| is_token_byte(*b)));
        if named { fields } else { bare }
    }
}

/// RFC 9110 §5.6.2.
pub(crate) const fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// The directives of one line.
fn directives(line: &[u8]) -> impl Iterator<Item = Directive<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start();
            let name_len = rest.iter().take_while(|b| is_token_byte(**b)).count();
            let (name, mut after) = rest.split_at(name_len);
            let mut argument = None;
            let mut whole = true;
            if name_len > 0 && after.first() == Some(&b'=') {
                after = &after[1..];
                if after.first() == Some(&b'"') {
                    match quoted_end(after) {
                        Some(end) => {
                            argument = Some(&after[1..end]);
                            after = &after[end + 1..];
                        }
                        None => {
                            // An open quote swallows the rest of the line: nothing after it is a directive.
                            after = &[];
                            whole = false;
                        }
                    }
                } else {
                    let len = after.iter().take_while(|b| is_token_byte(**b)).count();
                    argument = Some(&after[..len]);
                    after = &after[len..];
                }
            }
            let junk = element_rest(after);
            whole &= after[..junk].trim_ascii().is_empty();
            let ended = junk == after.len();
            rest = if ended { &[] } else { &after[junk + 1..] };
            if name_len > 0 {
                return Some(Directive { name, argument, whole });
            }
            if ended {
                return None;
            }
        }
    })
}

/// Index of the closing quote of a quoted string that begins at 0.
fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (i, b) in text.iter().enumerate().skip(1) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(i),
            _ => {}
        }
    }
    None
}

/// Length of what stands before the next comma that is not inside quotes.
fn element_rest(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(b) = text.get(at) {
        match b {
            b',' => return at,
            b'"' => match quoted_end(&text[at..]) {
                Some(end) => at += end + 1,
                None => return text.len(),
            },
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn cc(lines: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        CacheControl::of(&headers)
    }

    /// Pitfalls 4 and 5: numbers, quotes, duplicates, junk.
    #[test]
    fn rfc9111_5_2_max_age() {
        for (lines, expected) in [
            (&["max-age=60"][..], Some(60)),
            (&["MaX-aGe=60"], Some(60)),
            (&["max-age=\"60\""], Some(60)),
            (&["max-age=0060"], Some(60)),
            (&["  max-age=60  ,"], Some(60)),
            (&["foo, max-age=60, bar=1"], Some(60)),
            (&["max-age=2147483647"], Some(2_147_483_647)),
            (&["max-age=2147483648"], Some(DELTA_MAX)),
            (&["max-age=99999999999999999999999"], Some(DELTA_MAX)),
            (&["max-age=1800, max-age=1"], Some(1)),
            (&["max-age=1, max-age=1800"], Some(1)),
            (&["max-age=1800", "max-age=1"], Some(1)),
            (&["max-age=-1"], Some(0)),
            (&["max-age=3600.0"], Some(0)),
            (&["max-age='3600'"], Some(0)),
            (&["max-age=a3600"], Some(0)),
            (&["max-age=3600a"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age =3600"], Some(0)),
            (&["max-age= 3600"], Some(0)),
            (&["max-age=3600 3600"], Some(0)),
            (&["max-age=\"3600"], Some(0)),
            (&["extension=\"max-age=3600\", max-age=1"], Some(1)),
            (&["max-age=1, extension=\"max-age=3600\""], Some(1)),
            (&["extension=\"max-age=3600, \\\", max-age=3600\""], None),
            (&["extension=\"open, max-age=3600"], None),
            (&["xmax-age=3600"], None),
            (&["max-agex=3600"], None),
            (&["s-maxage=60"], None),
            (&[], None),
            (&[""], None),
            (&[",,,"], None),
            (&["=5, \"max-age=7\", max-age=3"], Some(3)),
        ] {
            assert_eq!(cc(lines).max_age, expected, "{lines:?}");
        }
    }

    /// Pitfall 6: with field names the directive is about those fields only.
    #[test]
    fn rfc9111_5_2_2_4_and_7_field_names() {
        let bare = cc(&["no-cache, private"]);
        assert!(bare.no_cache && bare.private && !bare.no_cache_fields && !bare.private_fields);
        let named = cc(&["no-cache=\"a, b\"", "private=c"]);
        assert!(!named.no_cache && !named.private && named.no_cache_fields && named.private_fields);
        // Empty, unclosed or followed by junk: the careful reading.
        for line in ["no-cache=\"\"", "no-cache=\"a", "no-cache=\"a\" b", "no-cache="] {
            assert!(cc(&[line]).no_cache, "{line}");
        }
        let both = cc(&["private=\"a\", private"]);
        assert!(both.private);

        let mut headers = HeaderMap::new();
        headers.append(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache=\"a, ,B \", ext=\"z\", private=c"),
        );
        let mut names = Vec::new();
        for_each_listed_field(&headers, |name| {
            names.push(String::from_utf8_lossy(name).into_owned())
        });
        assert_eq!(names, ["a", "B", "c"]);
    }

    #[test]
    fn careful_readings() {
        assert!(cc(&["no-store junk"]).no_store);
        assert!(cc(&["No-StOrE"]).no_store);
        assert!(cc(&["no-store=1"]).no_store);
        assert!(!cc(&["public junk"]).public);
        assert!(!cc(&["x=\"no-store\""]).no_store);
        assert!(cc(&["foo"]).present && !cc(&[""]).present);
        assert_eq!(cc(&["max-stale"]).max_stale, Some(MaxStale::Any));
        assert_eq!(cc(&["max-stale=5"]).max_stale, Some(MaxStale::Seconds(5)));
        assert_eq!(cc(&["max-stale, max-stale=5"]).max_stale, Some(MaxStale::Seconds(5)));
        assert_eq!(cc(&["max-stale=x"]).max_stale, Some(MaxStale::Seconds(0)));
        assert_eq!(cc(&["min-fresh=5, min-fresh=7"]).min_fresh, Some(7));
        assert_eq!(cc(&["stale-while-revalidate=x"]).stale_while_revalidate, Some(0));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(directives(&bytes).count() <= bytes.len());
        }

        #[test]
        fn near_syntax_does_not_panic(text in "([a-z-]{0,9}[=\" ,\\\\0-9]{0,5}){0,8}") {
            prop_assert!(directives(text.as_bytes()).count() <= text.len());
        }

        /// Whatever stands in a quoted argument is not a directive.
        #[test]
        fn a_quoted_argument_hides_all(inner in "[ -!#-\\[\\]-~]{0,40}", seconds in 0..DELTA_MAX) {
            let line = format!("ext=\"{inner}\", max-age={seconds}");
            let parsed = cc(&[&line]);
            prop_assert_eq!(&parsed, &CacheControl { present: true, max_age: Some(seconds), ..CacheControl::default() });
        }

        #[test]
        fn delta_seconds_never_wrap(digits in "[0-9]{1,40}") {
            let value = delta_seconds(digits.as_bytes()).unwrap();
            let exact = digits.parse::<u128>().map_or(u128::MAX, |exact| exact);
            prop_assert_eq!(u128::from(value), exact.min(u128::from(DELTA_MAX)));
        }
    }
}
