//! No-Vary-Search (draft-ietf-httpbis-no-vary-search): which parameters of the query make no difference to a response.
//!
//! What is no valid field says nothing: every part of the query counts, as it does without one.

use http::header::HeaderName;

use super::fields::Lines;
use super::structured::{self, Item};

static NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// Names in one field, and parameters in one query, beyond which it is not looked at.
const MAX_NAMES: usize = 128;
const MAX_PARAMETERS: usize = 512;

/// A response's search variance, with something in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variance {
    params: Params,
    /// Whether the order of parameters with different names counts.
    ordered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Params {
    /// All count but these.
    AllBut(Vec<Vec<u8>>),
    /// None counts but these.
    Only(Vec<Vec<u8>>),
}

/// A query as a variance sees it: what is equal is the same to the origin.
pub type Canonical = Vec<(Vec<u8>, Vec<u8>)>;

impl Variance {
    /// What a response says. `None`: the whole query counts.
    pub fn of(response: &impl Lines) -> Option<Self> {
        let members = structured::dictionary(response, &NO_VARY_SEARCH)?;
        let get = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, item)| item);
        let ordered = match get("key-order") {
            None => true,
            Some(Item::Boolean(free)) => !free,
            Some(_) => return None,
        };
        let params = match (get("params"), get("except")) {
            (None | Some(Item::Boolean(false)), None) => Params::AllBut(Vec::new()),
            (Some(Item::List(names)), None) => Params::AllBut(strings(names)?),
            (Some(Item::Boolean(true)), None) => Params::Only(Vec::new()),
            (Some(Item::Boolean(true)), Some(Item::List(names))) => Params::Only(strings(names)?),
            _ => return None,
        };
        let nothing = ordered && matches!(&params, Params::AllBut(names) if names.is_empty());
        (!nothing).then_some(Self { params, ordered })
    }

    /// Roughly the bytes that it takes.
    pub fn weight(&self) -> usize {
        let (Params::AllBut(names) | Params::Only(names)) = &self.params;
        size_of::<Self>()
            + names.iter().map(|name| name.len() + size_of::<Vec<u8>>()).sum::<usize>()
    }

    /// What of a query counts; `None` for one with too many parameters.
    pub fn canonical(&self, query: Option<&str>) -> Option<Canonical> {
        let mut counting = Canonical::new();
        let parameters = query.unwrap_or_default().split('&').filter(|text| !text.is_empty());
        for (at, parameter) in parameters.enumerate() {
            if at == MAX_PARAMETERS {
                return None;
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = decoded(name.as_bytes());
            let counts = match &self.params {
                Params::AllBut(names) => !names.contains(&name),
                Params::Only(names) => names.contains(&name),
            };
            if counts {
                counting.push((name, decoded(value.as_bytes())));
            }
        }
        if !self.ordered {
            counting.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Some(counting)
    }
}

/// Names as they stand in a query once it is decoded; `None` when one of them is no string.
fn strings(items: &[Item]) -> Option<Vec<Vec<u8>>> {
    let name = |item: &Item| match item {
        Item::String(text) => Some(decoded(text.as_bytes())),
        _ => None,
    };
    let mut names: Vec<_> = items.iter().take(MAX_NAMES + 1).map(name).collect::<Option<_>>()?;
    names.sort_unstable();
    names.dedup();
    (names.len() <= MAX_NAMES).then_some(names)
}

/// application/x-www-form-urlencoded (WHATWG URL §5.1): `+` is a space, `%` without two hex digits is itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    let hex = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(b) = text.get(at) {
        at += 1;
        match (b, hex(at), hex(at + 1)) {
            (b'+', ..) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 2;
            }
            _ => out.push(*b),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn variance(value: &str) -> Option<Variance> {
        let mut headers = HeaderMap::new();
        headers.insert(&NO_VARY_SEARCH, HeaderValue::from_str(value).unwrap());
        Variance::of(&headers)
    }

    /// What says nothing, and what is not valid: the whole query counts.
    #[test]
    fn no_vary_search_4_no_valid_field_says_nothing() {
        for value in [
            "",
            "params=?0",
            "key-order=?0",
            "params=()",
            "unknown",
            "key-order=1",
            "key-order=\"a\"",
            "params=\"a\"",
            "params=(a)",
            "params=(1 \"a\")",
            "params=1",
            "except=(\"a\")",
            "params=?0, except=(\"a\")",
            "params=(\"a\"), except=(\"b\")",
            "params, except=\"a\"",
            "params, except=(a)",
            "params, except",
            "params=(\"a\"",
            "KEY-ORDER",
        ] {
            assert_eq!(variance(value), None, "{value}");
        }
        assert_eq!(Variance::of(&HeaderMap::new()), None);
    }

    #[test]
    fn no_vary_search_5_equivalence() {
        for (value, a, b, same) in [
            ("params", "a=1", "b=2&c", true),
            ("params", "", "b=2", true),
            ("params=(\"a\")", "a=1&b=2", "b=2", true),
            ("params=(\"a\")", "a=1&b=2", "b=2&a=5&a=6", true),
            ("params=(\"a\")", "b=1", "b=2", false),
            ("params=(\"a\")", "b=1&c=1", "c=1&b=1", false),
            ("params=(\"a\"), key-order", "b=1&a&c=1", "c=1&b=1", true),
            ("key-order", "b=1&c=1", "c=1&b=1", true),
            ("key-order", "b=1&b=2", "b=2&b=1", false),
            ("params, except=(\"id\")", "id=1&a=2", "b=3&id=1", true),
            ("params, except=(\"id\")", "id=1", "id=2", false),
            ("params, except=(\"id\")", "id=1", "", false),
            ("params, except=()", "id=1", "", true),
            ("params=(\"a b\")", "a+b=1", "a%20b=2", true),
            ("params=(\"a+b\")", "a%20b=1", "", true),
            ("params=(\"%C3%A9\")", "%c3%a9=1", "", true),
            ("params=(\"a\")", "A=1", "A=2", false),
            ("params=(\"a\")", "%zz=1", "%zz=1&a", true),
            ("params=(\"a\"), new=1", "a=1", "a=2", true),
        ] {
            let variance = variance(value).unwrap();
            let of = |query: &str| variance.canonical(Some(query)).unwrap();
            assert_eq!(of(a) == of(b), same, "{value}: {a} {b}");
        }
        let all = variance("params").unwrap();
        assert_eq!(all.canonical(None), all.canonical(Some("")));
        assert_eq!(all.canonical(Some(&"a&".repeat(MAX_PARAMETERS + 1))), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in "[ -~]{0,40}", query in "[!-~]{0,40}") {
            if let Some(variance) = variance(&value) {
                let _ = variance.canonical(Some(&query));
            }
        }

        /// Equal queries are equal to every variance.
        #[test]
        fn it_only_ever_makes_more_equal(query in "[ab=&%2+]{0,20}") {
            for value in ["params", "params=(\"a\")", "key-order", "params, except=(\"a\")"] {
                let variance = variance(value).unwrap();
                prop_assert_eq!(variance.canonical(Some(&query)), variance.canonical(Some(&query)));
            }
        }
    }
}
