//! Lines of the query log, read back.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use shared::prefix::Prefix;

use crate::name::Name;
use crate::rtype;

/// A query as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The name asked for.
    pub name: Name,
    /// The type asked for.
    pub qtype: u16,
    /// Where the query came from.
    pub client: IpAddr,
    /// The client subnet in it.
    pub subnet: Option<Prefix>,
}

/// The fields that count; all others are passed over.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    subnet: Option<Cow<'a, str>>,
}

/// Reads one line; none for a packet that was not a query.
///
/// # Errors
/// Why the line is not one of a query log.
pub fn parse(line: &[u8]) -> Result<Option<Query>, String> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let address = line.client.parse().map(|client: SocketAddr| client.ip());
    let client = address
        .or_else(|_| line.client.parse())
        .map_err(|_| format!("`{}` is not an address", line.client))?;
    if line.name.is_empty() && line.r#type.is_empty() {
        return Ok(None);
    }
    let qtype = rtype::parse(&line.r#type)
        .ok_or_else(|| format!("`{}` is not a record type", line.r#type))?;
    let subnet = line.subnet.map(|subnet| subnet.parse::<Prefix>()).transpose();
    Ok(Some(Query {
        name: Name::parse_absolute(&line.name)?,
        qtype,
        client,
        subnet: subnet.map_err(|error| error.to_string())?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_query_log_read_back() {
        let line = br#"{"time":"2026-01-01T00:00:00Z","node":"ns1","proto":"udp","client":"[2001:db8::1]:5300","subnet":"80.0.0.0/20","name":"a\\.b.cdn.test.","type":"HTTPS","rcode":"NOERROR","reason":"first-choice","bytes":80}"#;
        let query = parse(line).unwrap().unwrap();
        assert_eq!(query.name.to_string(), "a\\.b.cdn.test.");
        assert_eq!((query.qtype, query.client.to_string().as_str()), (65, "2001:db8::1"));
        assert_eq!(query.subnet.map(|net| net.to_string()).as_deref(), Some("80.0.0.0/20"));
        let bare = br#"{"client":"192.0.2.1","name":"x.","type":"TYPE99"}"#;
        assert_eq!(parse(bare).unwrap().unwrap().qtype, 99);
        let dropped = br#"{"client":"192.0.2.1:0","name":"","type":"","reason":"not-a-query"}"#;
        assert_eq!(parse(dropped), Ok(None));
    }

    #[test]
    fn other_lines_are_told() {
        for line in [
            &b""[..],
            b"{",
            b"[]",
            b"null",
            b"{}",
            br#"{"client":1,"name":"x.","type":"A"}"#,
            br#"{"client":"x","name":"x.","type":"A"}"#,
            br#"{"client":"192.0.2.1","name":"x..","type":"A"}"#,
            br#"{"client":"192.0.2.1","name":"x.","type":"NOPE"}"#,
            br#"{"client":"192.0.2.1","name":"x.","type":"A","subnet":"192.0.2.1/8"}"#,
            b"\xff\xfe",
        ] {
            assert!(parse(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
