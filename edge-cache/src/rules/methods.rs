//! Which methods a route serves: others get 405 with the list in Allow (RFC 9110 §15.5.6), whatever the origin would say.
//!
//! HEAD goes with GET. CONNECT and TRACE are on no list: [`crate::admit`] refuses them. OPTIONS is the origin's to answer
//! where it is on the list; where it is not, the node answers it with the list.

use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, Method};

/// Served where a route does not say.
const DEFAULT: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// The methods of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    served: Vec<Method>,
    /// Others, too.
    any: bool,
    /// The route names them itself: an origin that allows more is corrected.
    listed: bool,
    allow: HeaderValue,
}

impl Default for Methods {
    fn default() -> Self {
        Self::of(DEFAULT.to_vec(), false)
    }
}

impl Methods {
    /// Those of a route's `methods`.
    ///
    /// # Errors
    /// One of them is no method.
    pub fn new(listed: &[String]) -> Result<Self, String> {
        let mut served = Vec::new();
        for name in listed {
            let method = Method::from_bytes(name.as_bytes())
                .map_err(|_| format!("`{name}` is not a method"))?;
            if method == Method::GET {
                served.extend([Method::GET, Method::HEAD]);
            } else {
                served.push(method);
            }
        }
        let mut seen = Vec::new();
        served.retain(|method| {
            let new = !seen.contains(method);
            seen.push(method.clone());
            new
        });
        Ok(Self::of(served, true))
    }

    /// All that there are: which of them a resource has is for its origin to say (RFC 9110 §9.1).
    pub fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    fn of(served: Vec<Method>, listed: bool) -> Self {
        let mut names: Vec<&str> = served.iter().map(Method::as_str).collect();
        if !names.contains(&"OPTIONS") {
            names.push("OPTIONS");
        }
        let allow = names.join(", ");
        // Methods are tokens, which every field may hold.
        let allow = HeaderValue::from_str(&allow).unwrap_or(HeaderValue::from_static("GET, HEAD"));
        Self { served, any: false, listed, allow }
    }

    /// Whether it is served.
    pub fn serves(&self, method: &Method) -> bool {
        self.any || self.served.contains(method)
    }

    /// Whether the route names it itself.
    pub fn names(&self, method: &Method) -> bool {
        self.listed && self.serves(method)
    }

    /// The value of Allow.
    pub fn allow(&self) -> HeaderValue {
        self.allow.clone()
    }

    /// Takes off an origin's Allow what this route does not serve.
    pub fn correct(&self, headers: &mut HeaderMap) {
        if !self.listed || !headers.contains_key(ALLOW) {
            return;
        }
        let mut kept: Vec<&str> = Vec::new();
        let lines = headers.get_all(ALLOW).iter().filter_map(|line| line.to_str().ok());
        for name in lines.flat_map(|line| line.split(',')).map(str::trim) {
            // OPTIONS is answered here where the route does not have it.
            let served = Method::from_bytes(name.as_bytes())
                .is_ok_and(|method| method == Method::OPTIONS || self.serves(&method));
            if served && !kept.contains(&name) {
                kept.push(name);
            }
        }
        let kept = HeaderValue::from_str(&kept.join(", ")).unwrap_or_else(|_| self.allow());
        headers.insert(ALLOW, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(names: &[&str]) -> Methods {
        Methods::new(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn rfc9110_15_5_6_allow_lists_what_is_served() {
        for (names, served, allow) in [
            (&["GET"][..], &["GET", "HEAD"][..], "GET, HEAD, OPTIONS"),
            (&["HEAD", "GET"], &["GET", "HEAD"], "HEAD, GET, OPTIONS"),
            (&["POST"], &["POST"], "POST, OPTIONS"),
            (&["GET", "OPTIONS"], &["GET", "HEAD", "OPTIONS"], "GET, HEAD, OPTIONS"),
            (&["PROPFIND"], &["PROPFIND"], "PROPFIND, OPTIONS"),
        ] {
            let made = methods(names);
            assert_eq!(made.allow(), allow);
            for name in ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND", "get"] {
                let method = Method::from_bytes(name.as_bytes()).unwrap();
                assert_eq!(made.serves(&method), served.contains(&name), "{names:?} {name}");
            }
        }
        assert!(methods(&["PUT"]).names(&Method::PUT) && !methods(&["GET"]).names(&Method::PUT));
        let default = Methods::default();
        assert!(!default.names(&Method::PUT));
        assert_eq!(default.allow(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        assert!(default.serves(&Method::DELETE) && !default.serves(&Method::TRACE));
        assert!(Methods::new(&["G T".to_owned()]).is_err());
        let search = Method::from_bytes(b"M-SEARCH").unwrap();
        assert!(!default.serves(&search) && !Methods::any().names(&search));
        assert!(Methods::any().serves(&search), "RFC 9110 §9.1: the origin knows its methods");
    }

    #[test]
    fn an_origins_allow_is_cut_to_the_routes_list() {
        let corrected = |methods: &Methods, values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ALLOW, HeaderValue::from_static(value));
            }
            methods.correct(&mut headers);
            let all = headers.get_all(ALLOW).iter();
            all.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let get = methods(&["GET", "OPTIONS"]);
        assert_eq!(corrected(&get, &["GET,PUT , OPTIONS,,", "DELETE, GET"]), ["GET, OPTIONS"]);
        assert_eq!(corrected(&get, &["PUT"]), [""]);
        assert!(corrected(&get, &[]).is_empty());
        assert_eq!(corrected(&Methods::default(), &["GET, PROPFIND"]), ["GET, PROPFIND"]);
    }
}
