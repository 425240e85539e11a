//! Values with a form of their own. Each reads from one TOML value, so that an error has its place in the file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::size::{parse_rate, parse_size};
use crate::time::parse_duration;

/// Reads a value from a string by its `TryFrom<String>`. Unlike serde's `try_from` it keeps the place of an element of a
/// list, and says what is wanted in place of another type.
macro_rules! from_text {
    ($($value:ident: $wanted:literal),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $value {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $value;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($wanted)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$value, E> {
                        $value::try_from(text.to_owned()).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )*};
}

pub(super) use from_text;

from_text! {
    Dur: "a length of time, such as \"30s\"",
    Size: "a size, such as \"512MiB\"",
    Rate: "a rate, such as \"10Gbps\"",
    Control: "\"embedded\" or \"nats://HOST:PORT\"",
    LogTarget: "\"off\", \"stdout\" or a file name",
    DnstapTarget: "\"off\", a file name, or \"unix:SOCKET\"",
    AllDown: "a string, such as \"last-good\"",
    StatusPattern: "a string, such as \"200\" or \"2xx\"",
    OriginUrl: "a URL, such as \"http://127.0.0.1:8080\"",
}

/// A length of time: `"30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dur(Duration);

impl Dur {
    /// No time.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// Seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The standard type.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl TryFrom<String> for Dur {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self)
    }
}

/// Bytes: `"512MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl TryFrom<String> for Size {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse_size(&text).map(Self)
    }
}

/// Bits per second: `"10Gbps"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

impl TryFrom<String> for Rate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse_rate(&text).map(Self)
    }
}

/// A place on earth: `[latitude, longitude]` in degrees.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(try_from = "Vec<f64>")]
pub struct Location {
    /// −90 (south) to 90 (north).
    pub latitude: f64,
    /// −180 (west) to 180 (east).
    pub longitude: f64,
}

impl TryFrom<Vec<f64>> for Location {
    type Error = String;
    fn try_from(degrees: Vec<f64>) -> Result<Self, String> {
        let [latitude, longitude] = degrees[..] else {
            return Err("a location is two numbers: [latitude, longitude]".to_owned());
        };
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(format!(
                "latitude {latitude} is not between -90 and 90 (the latitude comes first)"
            ));
        }
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(format!("longitude {longitude} is not between -180 and 180"));
        }
        Ok(Self { latitude, longitude })
    }
}

/// `control` of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// A log kept by a geodns.
    Embedded,
    /// NATS JetStream at this URL.
    Nats(String),
}

impl TryFrom<String> for Control {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "embedded" => Ok(Self::Embedded),
            url if url.starts_with("nats://") && url.len() > 7 => Ok(Self::Nats(text)),
            _ => Err(format!("`{text}` is neither \"embedded\" nor \"nats://HOST:PORT\"")),
        }
    }
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to, opened anew on reload. `{node}` in its name is the node's.
    File(PathBuf),
}

impl TryFrom<String> for LogTarget {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "" => Err("write \"off\", \"stdout\" or a file name".to_owned()),
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

/// Where dnstap goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnstapTarget {
    /// Nowhere.
    Off,
    /// A file in Frame Streams format. `{node}` in its name is the node's.
    File(PathBuf),
    /// A collector's Unix socket.
    Socket(PathBuf),
}

impl TryFrom<String> for DnstapTarget {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match (text.as_str(), text.strip_prefix("unix:")) {
            ("" | "unix:", _) => Err("write \"off\", a file name, or \"unix:SOCKET\"".to_owned()),
            ("off", _) => Ok(Self::Off),
            (_, Some(socket)) => Ok(Self::Socket(PathBuf::from(socket))),
            (_, None) => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl DnstapTarget {
    pub(super) fn resolve(&mut self, dir: &Path) {
        if let Self::File(path) | Self::Socket(path) = self {
            *path = dir.join(&path);
        }
    }

    /// The same with `{node}` replaced.
    pub fn for_node(&self, node: &str) -> Self {
        let named = |path: &Path| PathBuf::from(path.to_string_lossy().replace("{node}", node));
        match self {
            Self::Off => Self::Off,
            Self::File(path) => Self::File(named(path)),
            Self::Socket(path) => Self::Socket(named(path)),
        }
    }
}

impl LogTarget {
    pub(super) fn resolve(&mut self, dir: &Path) {
        if let Self::File(path) = self {
            *path = dir.join(&path);
        }
    }

    /// The same with `{node}` replaced.
    pub fn for_node(&self, node: &str) -> Self {
        match self {
            Self::File(path) => {
                Self::File(PathBuf::from(path.to_string_lossy().replace("{node}", node)))
            }
            other => other.clone(),
        }
    }
}

/// What is answered when no datacenter is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllDown {
    /// What was answered when something was last up; before that, as if all were up.
    LastGood,
    /// As if all were up.
    All,
    /// NOERROR without an answer.
    Nodata,
    /// SERVFAIL.
    Servfail,
    /// This datacenter.
    Fallback(String),
}

impl TryFrom<String> for AllDown {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "last-good" => Self::LastGood,
            "all" => Self::All,
            "nodata" => Self::Nodata,
            "servfail" => Self::Servfail,
            other => match other.strip_prefix("fallback:") {
                Some(name) if !name.is_empty() => Self::Fallback(name.to_owned()),
                _ => {
                    return Err(format!(
                        "`{text}` is none of \"last-good\", \"all\", \"nodata\", \"servfail\", \"fallback:DATACENTER\""
                    ));
                }
            },
        })
    }
}

/// Status codes: `"200"`, `"2xx"`, `"200-299"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusPattern {
    /// The first that matches.
    pub from: u16,
    /// The last that matches.
    pub to: u16,
}

impl StatusPattern {
    /// Whether `status` is one of them.
    pub const fn matches(self, status: u16) -> bool {
        self.from <= status && status <= self.to
    }
}

impl TryFrom<String> for StatusPattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let status =
            |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        let range = if let Some((from, to)) = text.split_once('-') {
            status(from).zip(status(to)).filter(|(from, to)| from <= to)
        } else if let Some(class) = text.strip_suffix("xx") {
            class
                .parse::<u16>()
                .ok()
                .filter(|class| (1..=5).contains(class))
                .map(|class| (class * 100, class * 100 + 99))
        } else {
            status(&text).map(|status| (status, status))
        };
        range.map(|(from, to)| Self { from, to }).ok_or_else(|| {
            format!("`{text}` is not a status: write \"200\", \"2xx\" or \"200-299\"")
        })
    }
}

/// Where an origin's server is: `http://HOST[:PORT]` or `https://HOST[:PORT]`, without a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginUrl {
    /// Whether over TLS.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// 80 or 443 where the URL has none.
    pub port: u16,
}

impl OriginUrl {
    /// `HOST:PORT`, the port left out where it is the scheme's own, IPv6 addresses in brackets.
    pub fn authority(&self) -> String {
        let host = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        if self.port == if self.tls { 443 } else { 80 } {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl std::fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl TryFrom<String> for OriginUrl {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "`{text}` is not a server's URL ({why}): write \"http://HOST:PORT\" or \"https://HOST\""
            )
        };
        let uri: http::Uri = text.parse().map_err(|_| wrong("it is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("the scheme is neither http nor https")),
        };
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") {
            return Err(wrong("a path belongs in the routes"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") if tls => 443,
            Some("") => 80,
            _ => match authority.port_u16() {
                Some(port) if port > 0 => port,
                _ => return Err(wrong("the port is not between 1 and 65535")),
            },
        };
        Ok(Self { tls, host, port })
    }
}

/// A route's `cache`: a policy's name, or off.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(from = "String")]
pub enum RouteCache {
    /// Requests are passed on, nothing is stored.
    Off,
    /// The policy of this name. `default` need not be configured.
    Policy(String),
}

impl Default for RouteCache {
    fn default() -> Self {
        Self::Policy("default".to_owned())
    }
}

impl From<String> for RouteCache {
    fn from(text: String) -> Self {
        if text == "off" { Self::Off } else { Self::Policy(text) }
    }
}

/// `parents` of a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parents {
    /// Those of the nearest datacenter that has any; further ones follow by distance.
    NearestDatacenter,
    /// These.
    Named(Vec<String>),
}

impl<'de> Deserialize<'de> for Parents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParentsVisitor;
        impl<'de> Visitor<'de> for ParentsVisitor {
            type Value = Parents;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of edges or \"nearest-datacenter\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Parents, E> {
                match text {
                    "nearest-datacenter" => Ok(Parents::NearestDatacenter),
                    _ => Err(E::custom(format!(
                        "`{text}` is neither a list of edges nor \"nearest-datacenter\""
                    ))),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Parents, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    names.push(name);
                }
                Ok(Parents::Named(names))
            }
        }
        deserializer.deserialize_any(ParentsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_urls_have_a_host_and_no_path() {
        let url = |text: &str| OriginUrl::try_from(text.to_owned());
        assert_eq!(
            url("http://127.0.9.1:9001").unwrap(),
            OriginUrl { tls: false, host: "127.0.9.1".to_owned(), port: 9001 }
        );
        assert_eq!(url("https://[2001:db8::1]/").unwrap().authority(), "[2001:db8::1]");
        assert_eq!(url("https://b.test:8443").unwrap().to_string(), "https://b.test:8443");
        for text in [
            "",
            "b.test",
            "ftp://b.test",
            "http://",
            "http://b.test/x",
            "http://u@b.test",
            "http://b.test?x",
            "http://b.test:0",
            "http://b.test:99999",
            "http://b.test:",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn statuses_are_single_a_class_or_a_range() {
        let pattern = |text: &str| StatusPattern::try_from(text.to_owned());
        assert!(pattern("200").unwrap().matches(200));
        assert!(!pattern("200").unwrap().matches(204));
        assert!(pattern("2xx").unwrap().matches(299));
        assert!(pattern("200-302").unwrap().matches(301));
        for text in ["", "20", "9xx", "600", "302-200", "2xx-3xx", "-"] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_fallback_names_its_datacenter() {
        let parse = |text: &str| AllDown::try_from(text.to_owned());
        assert_eq!(parse("fallback:fra"), Ok(AllDown::Fallback("fra".to_owned())));
        assert!(parse("fallback:").is_err());
        assert!(parse("everything").is_err());
    }
}
