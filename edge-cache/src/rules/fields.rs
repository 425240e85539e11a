//! Fields that a route sets and takes off: of requests on their way to the origin, and of responses on their way to clients.
//!
//! Neither touches the store. A field of a request is the same for all clients, so it needs no part in the cache key; a
//! field of a response is put on when it is sent, so that a changed configuration holds for what is stored, too.

use http::{HeaderMap, HeaderName, HeaderValue};
use shared::config::FieldsSpec;

/// What is set and taken off, in this order: off, then set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl Fields {
    /// Of a route's `request_headers` or `response_headers`.
    ///
    /// # Errors
    /// What is no field.
    pub fn new(spec: &FieldsSpec) -> Result<Self, String> {
        let name = |text: &String| {
            HeaderName::try_from(text.as_str()).map_err(|_| format!("`{text}` is not a field name"))
        };
        let mut set = Vec::new();
        for (field, value) in &spec.set {
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("`{field}` cannot have this value"))?;
            set.push((name(field)?, value));
        }
        let remove = spec.remove.iter().map(name).collect::<Result<_, _>>()?;
        Ok(Self { set, remove })
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Does it.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}

impl std::fmt::Display for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = self.set.iter().map(|(name, _)| format!("set {name}"));
        let removed = self.remove.iter().map(|name| format!("remove {name}"));
        f.write_str(&removed.chain(set).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_replaced_and_taken_off() {
        let spec = FieldsSpec {
            set: [("X-Edge".to_owned(), "1".to_owned()), ("Server".to_owned(), String::new())]
                .into(),
            remove: vec!["Set-Cookie".to_owned(), "x-none".to_owned()],
        };
        let fields = Fields::new(&spec).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-edge", "a"), ("x-edge", "b"), ("set-cookie", "c"), ("x-other", "d")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        fields.apply(&mut headers);
        let mut all: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        all.sort();
        assert_eq!(all, ["server=", "x-edge=1", "x-other=d"]);
        assert_eq!(fields.to_string(), "remove set-cookie, remove x-none, set server, set x-edge");
        assert!(Fields::default().is_empty() && !fields.is_empty());
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for (name, value) in [("a b", ""), ("a", "b\r\nc: d"), ("", "")] {
            let set = [(name.to_owned(), value.to_owned())].into();
            assert!(
                Fields::new(&FieldsSpec { set, remove: Vec::new() }).is_err(),
                "{name:?} {value:?}"
            );
        }
    }
}
