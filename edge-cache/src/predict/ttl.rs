//! A sizing by hand: objects a second × mean size × mean lifetime. And why it is too much: what is asked for twice within
//! its lifetime is stored once. What there is to store is the bytes of the different objects of such a span.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use crate::trace::workload::{Record, Workload};

/// Spans that are looked at, if no lifetime is given.
pub const SPANS: [Duration; 6] = [
    Duration::from_secs(60),
    Duration::from_secs(600),
    Duration::from_secs(3600),
    Duration::from_secs(6 * 3600),
    Duration::from_secs(86_400),
    Duration::from_secs(7 * 86_400),
];

/// Both sizings for one lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sizing {
    /// The lifetime, in seconds.
    pub ttl: f64,
    /// Requests a second.
    pub rate: f64,
    /// Mean bytes of an object, each request counted.
    pub mean_size: f64,
    /// The product.
    pub textbook: f64,
    /// Requests within a span of that length, on the average.
    pub requests: f64,
    /// Different objects asked for within it.
    pub objects: f64,
    /// Their bytes.
    pub unique: f64,
    /// Whole spans that the log has. 0: it is shorter than one.
    pub spans: u64,
}

impl Sizing {
    /// How many times too much the textbook gives.
    pub fn overestimate(&self) -> f64 {
        if self.unique > 0.0 { self.textbook / self.unique } else { 1.0 }
    }
}

/// Sizes by hand and by looking. None: the log has no length.
pub fn size(workload: &Workload, ttl: Duration) -> Option<Sizing> {
    let length = workload.length().as_secs_f64();
    let records = workload.records();
    if length <= 0.0 || records.is_empty() {
        return None;
    }
    let rate = workload.all().requests / length;
    let total: u128 = records.iter().map(|record| u128::from(record.size)).sum();
    let mean_size = total as f64 / records.len() as f64;
    let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
    let spans = (workload.length().as_millis() as u64).saturating_add(1) / millis;
    let weight = 1.0 / workload.share();
    let (mut requests, mut objects, mut unique) = (0u64, 0u64, 0u128);
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for record in records {
        let Record { key, size, at, .. } = *record;
        let span = at / millis;
        // The last one is not whole, unless it is the only one.
        if spans > 0 && span >= spans {
            break;
        }
        requests += 1;
        if seen.insert(key, span) != Some(span) {
            objects += 1;
            unique += u128::from(size);
        }
    }
    let each = weight / spans.max(1) as f64;
    Some(Sizing {
        ttl: ttl.as_secs_f64(),
        rate,
        mean_size,
        textbook: rate * mean_size * ttl.as_secs_f64(),
        requests: requests as f64 * each,
        objects: objects as f64 * each,
        unique: unique as f64 * each,
        spans,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Request;
    use shared::time::UnixMillis;

    #[test]
    fn what_is_asked_for_twice_is_stored_once() {
        let mut workload = Workload::default();
        // A hundred objects of 1000 bytes, each once a second, for ten seconds.
        for n in 0..1000u64 {
            workload.push(&Request {
                at: UnixMillis(n * 10),
                host: "".into(),
                target: format!("/{}", n % 100).into(),
                is_head: false,
                status: 200,
                size: Some(1000),
                hit: None,
            });
        }
        workload.finish();
        let sizing = size(&workload, Duration::from_secs(5)).unwrap();
        assert_eq!(sizing.spans, 1, "9.99 seconds hold one span of five");
        assert!((sizing.rate - 100.1).abs() < 0.1, "{sizing:?}");
        assert!((sizing.textbook / 500_500.0 - 1.0).abs() < 0.001, "{sizing:?}");
        assert_eq!((sizing.requests, sizing.objects, sizing.unique), (500.0, 100.0, 100_000.0));
        assert!((sizing.overestimate() - 5.0).abs() < 0.02);
        let second = size(&workload, Duration::from_secs(1)).unwrap();
        assert_eq!((second.spans, second.objects, second.unique), (9, 100.0, 100_000.0));
        let day = size(&workload, Duration::from_secs(86_400)).unwrap();
        assert_eq!((day.spans, day.unique), (0, 100_000.0));
        assert_eq!(size(&Workload::default(), Duration::from_secs(1)), None);
    }
}
