//! DNS over HTTPS (RFC 8484), without the HTTP: where a request has its query, what is wrong with it, how long an
//! answer may be kept by caches of HTTP. The listener is `io::https`.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode, Uri};

use crate::rtype;

/// The path that is served (RFC 8484 §4.1 leaves it to the server; this one is everybody's).
pub const PATH: &str = "/dns-query";

/// The media type of DNS messages (RFC 8484 §6).
pub const MEDIA_TYPE: &str = "application/dns-message";

/// Where the query is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the URI: GET.
    Uri(Vec<u8>),
    /// In the body: POST.
    Body,
}

/// Why a request is not answered with a DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: StatusCode,
    /// What would be right, for whoever tries with a client by hand.
    pub why: &'static str,
}

impl Refusal {
    const fn new(status: StatusCode, why: &'static str) -> Self {
        Self { status, why }
    }
}

/// The content is longer than any query.
pub const TOO_LONG: Refusal =
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "a query has 4096 octets at most\n");
/// The content is not whole in time.
pub const TOO_SLOW: Refusal =
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "the query was not sent in time\n");
/// What there is, is no query.
pub const NO_QUERY: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "send one DNS query in its wire format\n");

const NO_PATH: Refusal = Refusal::new(StatusCode::NOT_FOUND, "DNS queries go to /dns-query\n");
const NO_METHOD: Refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST\n");
const NO_TYPE: Refusal = Refusal::new(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "the content type of a query is application/dns-message\n",
);
const NO_PARAMETER: Refusal =
    Refusal::new(StatusCode::BAD_REQUEST, "write ?dns= and a DNS query in base64url, unpadded\n");

/// Where a request with this head has its query.
///
/// # Errors
/// The status code to answer with.
pub fn source(method: &Method, uri: &Uri, fields: &HeaderMap) -> Result<Source, Refusal> {
    if uri.path() != PATH {
        return Err(NO_PATH);
    }
    match *method {
        Method::GET => query_parameter(uri.query().unwrap_or("")).map(Source::Uri),
        Method::POST => {
            let given = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = given.and_then(|value| value.split(';').next()).unwrap_or("");
            let is_dns = media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE);
            if is_dns { Ok(Source::Body) } else { Err(NO_TYPE) }
        }
        _ => Err(NO_METHOD),
    }
}

/// The one `dns=` of the URI's query.
fn query_parameter(query: &str) -> Result<Vec<u8>, Refusal> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("dns="));
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => base64url(value).ok_or(NO_PARAMETER),
        _ => Err(NO_PARAMETER),
    }
}

/// RFC 4648 §5 without padding, as RFC 8484 §6 asks for; bits that stand for nothing must be zero, so that one query
/// has one URI.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0_u32, 0);
    for character in text.bytes() {
        let six = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            octets.push((bits >> held) as u8);
        }
    }
    let rest = bits & ((1 << held) - 1);
    (held < 6 && rest == 0).then_some(octets)
}

/// How many seconds an answer stays fresh (RFC 8484 §5.1): the smallest TTL of its answers; where there are none, that
/// of the SOA or referral that says so, a SOA's no longer than its MINIMUM. 0 for errors, which nobody should keep.
pub fn max_age(answer: &[u8]) -> u32 {
    smallest_ttl(answer).unwrap_or(0)
}

fn smallest_ttl(answer: &[u8]) -> Option<u32> {
    let (header, mut rest) = answer.split_first_chunk::<12>()?;
    let &[_, _, flags, flags_low, q0, q1, an0, an1, ns0, ns1, ..] = header;
    let (is_truncated, rcode) = (flags & 0x02 != 0, flags_low & 0x0f);
    // NOERROR, NXDOMAIN: the others are about the query or the server, not about the name.
    if is_truncated || !matches!(rcode, 0 | 3) {
        return None;
    }
    for _ in 0..u16::from_be_bytes([q0, q1]) {
        rest = after_name(rest)?.get(4..)?;
    }
    let answers = u16::from_be_bytes([an0, an1]);
    let counted = if answers > 0 { answers } else { u16::from_be_bytes([ns0, ns1]) };
    let mut smallest = None;
    for _ in 0..counted {
        let (&[t0, t1, _, _, l0, l1, l2, l3, n0, n1], after) =
            after_name(rest)?.split_first_chunk::<10>()?;
        let (data, after) = after.split_at_checked(usize::from(u16::from_be_bytes([n0, n1])))?;
        rest = after;
        let mut ttl = u32::from_be_bytes([l0, l1, l2, l3]);
        if answers == 0 && u16::from_be_bytes([t0, t1]) == rtype::SOA {
            ttl = ttl.min(u32::from_be_bytes(*data.last_chunk()?));
        }
        smallest = Some(smallest.map_or(ttl, |smallest: u32| smallest.min(ttl)));
    }
    smallest
}

fn after_name(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        match *rest.first()? {
            0 => return rest.get(1..),
            length @ 1..=63 => rest = rest.get(1 + usize::from(length)..)?,
            _ => return rest.get(2..),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::time::UnixMillis;

    use super::*;
    use crate::answer::{Client, Context, Outcome, Server, Transport, answer};
    use crate::name::Name;
    use crate::testing;
    use crate::wire::write_query;

    fn ask(method: &str, uri: &str, content_type: Option<&str>) -> Result<Source, u16> {
        let mut fields = HeaderMap::new();
        if let Some(value) = content_type {
            fields.insert(CONTENT_TYPE, value.parse().unwrap());
        }
        source(&method.parse().unwrap(), &uri.parse().unwrap(), &fields)
            .map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn the_examples_are_read_rfc_8484_section_4_1_1() {
        let head = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let www = [&head[..], b"\x03www\x07example\x03com\0\0\x01\0\x01"].concat();
        let uri = "/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";
        assert_eq!(ask("GET", uri, None), Ok(Source::Uri(www)));
        let long = "/dns-query?dns=AAABAAABAAAAAAAAAWE-NjJjaGFyYWN0ZXJsYWJlbC1tYWtlcy1iYXNlNjR1cmwtZGlzdGluY3QtZnJvbS1zdGFuZGFyZC1iYXNlNjQHZXhhbXBsZQNjb20AAAEAAQ";
        let Ok(Source::Uri(query)) = ask("GET", long, None) else { panic!() };
        assert_eq!(query.len(), 94);
        assert!(query[12..].starts_with(b"\x01a>62characterlabel-makes-base64url"));
        assert_eq!(ask("POST", "/dns-query", Some("application/dns-message")), Ok(Source::Body));
        let other = "https://ns.test/dns-query?ct&dns=AAAA&x=1";
        assert_eq!(ask("GET", other, None), Ok(Source::Uri(vec![0; 3])));
    }

    #[test]
    fn what_is_wrong_gets_its_status() {
        for (method, uri, content_type, status) in [
            ("GET", "/", None, 404),
            ("GET", "/dns-query/", None, 404),
            ("POST", "/resolve", Some(MEDIA_TYPE), 404),
            ("GET", "/dns-query", None, 400),
            ("GET", "/dns-query?dns=", None, 400),
            ("GET", "/dns-query?name=www.cdn.test", None, 400),
            ("GET", "/dns-query?dns=AAAA&dns=AAAA", None, 400),
            ("GET", "/dns-query?dns=AAA=", None, 400),
            ("GET", "/dns-query?dns=AA+A", None, 400),
            ("GET", "/dns-query?dns=A", None, 400),
            ("GET", "/dns-query?dns=AB", None, 400),
            ("HEAD", "/dns-query?dns=AAAA", None, 405),
            ("PUT", "/dns-query", Some(MEDIA_TYPE), 405),
            ("POST", "/dns-query", None, 415),
            ("POST", "/dns-query", Some("application/json"), 415),
        ] {
            assert_eq!(ask(method, uri, content_type), Err(status), "{method} {uri}");
        }
        let parameters = Some("Application/DNS-Message; charset=x");
        assert_eq!(ask("POST", "/dns-query", parameters), Ok(Source::Body));
    }

    fn age(name: &str, qtype: u16) -> u32 {
        let snapshot = testing::snapshot(testing::world(&[], |_| {}), &[]);
        let query = write_query(1, &Name::parse_absolute(name).unwrap(), qtype, None);
        let address = ([192, 0, 2, 1], 5300).into();
        let client = Client { address, transport: Transport::Https, draw: 0 };
        let context = Context { server: &Server::default(), now: UnixMillis(0) };
        let mut out = vec![0; 4096];
        match answer(&query, &client, &context, &snapshot, &mut out) {
            Outcome::Respond { length, .. } => max_age(&out[..length]),
            Outcome::Drop(reason) => panic!("{reason:?}"),
        }
    }

    #[test]
    fn freshness_is_the_smallest_ttl_rfc_8484_section_5_1() {
        assert_eq!(age("static.cdn.test", rtype::A), 300);
        assert_eq!(age("www.cdn.test", rtype::A), 60, "steered");
        assert_eq!(age("alias.cdn.test", rtype::A), 60, "an alias of it");
        assert_eq!(age("none.cdn.test", rtype::A), 60, "MINIMUM");
        assert_eq!(age("x.sub.cdn.test", rtype::A), 300, "a referral");
        assert_eq!(age("example.com", rtype::A), 0, "REFUSED");
        let record = |owner: &[u8], rtype: u16, ttl: u32, data: &[u8]| {
            let length = u16::try_from(data.len()).unwrap().to_be_bytes();
            let (rtype, ttl) = (rtype.to_be_bytes(), ttl.to_be_bytes());
            [owner, &rtype, &[0, 1], &ttl, &length, data].concat()
        };
        let message = |flags: [u8; 2], counts: [u8; 3], records: &[Vec<u8>]| {
            let [an, ns, ar] = counts;
            let head = [0, 0, flags[0], flags[1], 0, 1, 0, an, 0, ns, 0, ar];
            [&head[..], b"\x01a\0\0\x01\0\x01", &records.concat()].concat()
        };
        let a = |ttl| record(&[0xc0, 12], rtype::A, ttl, &[192, 0, 2, 1]);
        let soa = |ttl, minimum: u32| {
            let data = [&[0, 0], &[0; 16][..], &minimum.to_be_bytes()].concat();
            record(b"\x01a\0", rtype::SOA, ttl, &data)
        };
        let ns = |ttl| record(&[0], rtype::NS, ttl, &[0]);
        for (expected, message) in [
            (30, message([0x84, 0], [2, 0, 0], &[a(60), a(30)])),
            (60, message([0x84, 0], [1, 1, 1], &[a(60), soa(5, 5), a(1)])),
            (7, message([0x84, 0], [0, 1, 0], &[soa(90, 7)])),
            (9, message([0x84, 3], [0, 1, 0], &[soa(9, 70)])),
            (20, message([0x80, 0], [0, 2, 1], &[ns(20), ns(30), a(1)])),
            (0, message([0x84, 2], [0, 1, 0], &[soa(9, 70)])),
            (0, message([0x86, 0], [1, 0, 0], &[a(60)])),
            (0, message([0x84, 0], [0, 0, 0], &[])),
            (0, message([0x84, 0], [3, 0, 0], &[a(60)])),
        ] {
            assert_eq!(max_age(&message), expected, "{message:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_safe(octets in prop::collection::vec(any::<u8>(), 0..80), text in "[A-Za-z0-9_=+-]{0,40}") {
            max_age(&octets);
            if let Some(read) = base64url(&text) {
                prop_assert_eq!(read.len(), text.len() * 3 / 4);
            }
        }
    }
}
