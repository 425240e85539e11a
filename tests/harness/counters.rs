//! Assertions on metrics: the named series moved by so much, and no other series of the same families moved at all.
//!
//! ```ignore
//! let mut watch = node.watch();
//! wire::get(node.http(), "www.cdn.test", "/a");
//! expect!(watch, edge_cache_requests_total{cache="miss"} += 1, edge_cache_collapsed_total += 0);
//! ```
//! A series is named by its family and any part of its labels; series that match one expectation are added up. A server
//! may count after its client has read the last byte, so an expectation that is not yet reached is asked again until
//! the harness's patience ends; one that is overshot fails at once. After success the next `expect!` counts from there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::wait;
use crate::wire;

/// Every series of a metrics page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scrape(BTreeMap<Series, f64>);

/// A family with its labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    family: String,
    labels: BTreeMap<String, String>,
}

impl Series {
    fn matches(&self, family: &str, labels: &[(&str, &str)]) -> bool {
        let has = |(name, value): &(&str, &str)| self.labels.get(*name).is_some_and(|v| v == value);
        self.family == family && labels.iter().all(has)
    }
}

impl Scrape {
    /// Reads `/metrics` of an admin listener.
    #[track_caller]
    pub fn of(admin: SocketAddr) -> Self {
        let reply = wire::get(admin, &admin.to_string(), "/metrics");
        assert_eq!(reply.status, 200, "{admin}/metrics: {}", reply.text());
        Self::parse(&reply.text())
    }

    /// Reads the text exposition format.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| parse(line).unwrap_or_else(|| panic!("no metric: {line}"))).collect())
    }

    /// The sum of the series of this family that carry these labels.
    pub fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.0.iter().filter(|(s, _)| s.matches(family, labels)).map(|(_, value)| value).sum()
    }

    /// Whether there is a series of this family.
    pub fn has(&self, family: &str) -> bool {
        self.0.keys().any(|series| series.family == family)
    }
}

/// `name{a="b",c="d"} 1.5`, with an optional time stamp that is left aside.
fn parse(line: &str) -> Option<(Series, f64)> {
    let (family, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, value) = rest.split_once("=\"")?;
            let mut text = String::new();
            let mut letters = value.char_indices();
            loop {
                match letters.next()? {
                    (_, '\\') => match letters.next()?.1 {
                        'n' => text.push('\n'),
                        other => text.push(other),
                    },
                    (at, '"') => {
                        rest = value[at + 1..].trim_start_matches([',', ' ']);
                        break;
                    }
                    (_, other) => text.push(other),
                }
            }
            labels.insert(name.trim().to_owned(), text);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((Series { family: family.to_owned(), labels }, value))
}

/// What one expectation of [`expect!`](crate::expect) says.
#[derive(Clone, Debug)]
pub struct Move<'a> {
    /// The family.
    pub family: &'a str,
    /// The labels that must be there.
    pub labels: &'a [(&'a str, &'a str)],
    /// By how much the series moved together.
    pub by: f64,
}

/// A point from which moves are counted.
#[derive(Clone, Debug)]
pub struct Watch {
    admin: SocketAddr,
    from: Scrape,
}

impl Watch {
    /// Counts from now.
    #[track_caller]
    pub fn new(admin: SocketAddr) -> Self {
        Self { admin, from: Scrape::of(admin) }
    }

    /// Waits until exactly these moves were made.
    #[track_caller]
    pub fn expect(&mut self, moves: &[Move<'_>]) {
        let mut last = Err(Vec::new());
        let _ = wait::try_within(wait::PATIENCE, || {
            let now = Scrape::of(self.admin);
            last = compare(&self.from, &now, moves).map(|()| now);
            match &last {
                Ok(_) => Some(()),
                // What was counted is not taken back: waiting would not help.
                Err(complaints) if complaints.iter().any(|c| c.overshot) => Some(()),
                Err(_) => None,
            }
        });
        match last {
            Ok(now) => self.from = now,
            Err(complaints) => {
                let lines: Vec<String> = complaints.into_iter().map(|c| c.text).collect();
                panic!("counters of {}:\n  {}", self.admin, lines.join("\n  "));
            }
        }
    }
}

#[derive(Debug)]
struct Complaint {
    text: String,
    overshot: bool,
}

fn compare(from: &Scrape, now: &Scrape, moves: &[Move<'_>]) -> Result<(), Vec<Complaint>> {
    let delta =
        |series: &Series| now.0.get(series).unwrap_or(&0.0) - from.0.get(series).unwrap_or(&0.0);
    let mut complaints = Vec::new();
    for expected in moves {
        let series = now.0.keys().filter(|s| s.matches(expected.family, expected.labels));
        let got: f64 = series.map(delta).sum();
        if got != expected.by {
            let Move { family, labels, by } = expected;
            let text = format!("{family}{labels:?} moved by {got}, not by {by}");
            complaints.push(Complaint { text, overshot: got > *by });
        }
    }
    for series in now.0.keys() {
        let named = moves.iter().any(|m| m.family == series.family);
        let expected = moves.iter().any(|m| series.matches(m.family, m.labels));
        let got = delta(series);
        if named && !expected && got != 0.0 {
            let text = format!("{}{:?} moved by {got} unasked", series.family, series.labels);
            complaints.push(Complaint { text, overshot: true });
        }
    }
    if complaints.is_empty() { Ok(()) } else { Err(complaints) }
}

/// Asserts that counters moved so, and that no other series of the families named here moved.
#[macro_export]
macro_rules! expect {
    ($watch:expr, $($family:ident $({ $($label:ident = $value:expr),* })? += $by:expr),+ $(,)?) => {
        $watch.expect(&[$($crate::counters::Move {
            family: stringify!($family),
            labels: &[$($((stringify!($label), $value)),*)?],
            by: f64::from($by),
        }),+])
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP x_total\nx_total{site=\"a\",cache=\"hit\"} 1\nx_total{site=\"a\",cache=\"miss\"} 2\ny 3\n";

    fn moves(labels: &'static [(&'static str, &'static str)], by: f64) -> [Move<'static>; 1] {
        [Move { family: "x_total", labels, by }]
    }

    #[test]
    fn labels_are_unescaped() {
        let scrape = Scrape::parse("z{a=\"q\\\"}\\\\\", b=\"\"} 4 1700000000\n");
        assert_eq!(scrape.sum("z", &[("a", "q\"}\\"), ("b", "")]), 4.0);
    }

    #[test]
    fn another_series_of_the_family_must_stand_still() {
        let before = Scrape::parse(BEFORE);
        let after = Scrape::parse(&BEFORE.replace("} 1", "} 2").replace("y 3", "y 9"));
        assert!(compare(&before, &after, &moves(&[("cache", "hit")], 1.0)).is_ok());
        let wrong = compare(&before, &after, &moves(&[("cache", "miss")], 0.0)).unwrap_err();
        assert!(wrong[0].text.contains("unasked"), "{wrong:?}");
        let short = compare(&before, &after, &moves(&[("cache", "hit")], 2.0)).unwrap_err();
        assert!(!short[0].overshot);
        assert!(compare(&before, &after, &moves(&[], 1.0)).is_ok());
    }
}
