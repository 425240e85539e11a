//! Counters, gauges and histograms, and their Prometheus text.
//!
//! Each program declares its families as constants ([`Family`]) in its own `metrics` module: name, unit in the name,
//! help, labels. Handles are resolved once, when a snapshot is built; a serving path only adds to an atomic.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One family of metrics: what is the same for all its label values.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The Prometheus name, unit and `_total` included.
    pub name: &'static str,
    /// One sentence for operators.
    pub help: &'static str,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
}

/// Upper bounds of histograms of durations, in seconds.
const BOUNDS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// A count that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// How often durations fell below given bounds.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug, Default)]
struct HistogramCells {
    /// One more than the bounds: the last is for what is beyond all of them.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// Adds a duration.
    pub fn observe(&self, duration: Duration) {
        let secs = duration.as_secs_f64();
        let at = BOUNDS.partition_point(|bound| *bound < secs);
        if let Some(count) = self.0.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

type Cells<T> = BTreeMap<Vec<String>, T>;

enum Values {
    Counters(Cells<Counter>),
    Gauges(Cells<Gauge>),
    Histograms(Cells<Histogram>),
}

struct Entry {
    family: Family,
    values: Values,
}

/// All metrics of one process.
#[derive(Default)]
pub struct Registry {
    entries: Mutex<BTreeMap<&'static str, Entry>>,
    collectors: Mutex<Vec<Collector>>,
}

/// Called before each scrape, to set gauges and take over counts that are kept elsewhere.
type Collector = Box<dyn Fn(&Registry) + Send + Sync>;

macro_rules! get_or_add {
    ($self:ident, $family:ident, $labels:ident, $variant:ident) => {{
        debug_assert_eq!($family.labels.len(), $labels.len(), "{}", $family.name);
        let mut entries = $self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries
            .entry($family.name)
            .or_insert_with(|| Entry { family: *$family, values: Values::$variant(Cells::new()) });
        match &mut entry.values {
            Values::$variant(cells) => {
                let labels = $labels.iter().map(|label| (*label).to_owned()).collect();
                cells.entry(labels).or_default().clone()
            }
            // A family declared as two kinds is a slip that the first scrape in a test shows.
            _ => Default::default(),
        }
    }};
}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of `family` with these label values.
    pub fn counter(&self, family: &Family, labels: &[&str]) -> Counter {
        get_or_add!(self, family, labels, Counters)
    }

    /// The gauge of `family` with these label values.
    pub fn gauge(&self, family: &Family, labels: &[&str]) -> Gauge {
        get_or_add!(self, family, labels, Gauges)
    }

    /// The histogram of `family` with these label values.
    pub fn histogram(&self, family: &Family, labels: &[&str]) -> Histogram {
        get_or_add!(self, family, labels, Histograms)
    }

    /// Forgets label values of a family, such as those of a datacenter that a reload took away.
    pub fn retain(&self, family: &Family, keep: impl Fn(&[String]) -> bool) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(family.name) {
            match &mut entry.values {
                Values::Counters(cells) => cells.retain(|labels, _| keep(labels)),
                Values::Gauges(cells) => cells.retain(|labels, _| keep(labels)),
                Values::Histograms(cells) => cells.retain(|labels, _| keep(labels)),
            }
        }
    }

    /// Has `collector` called before each scrape.
    pub fn on_scrape(&self, collector: impl Fn(&Self) + Send + Sync + 'static) {
        let mut collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner);
        collectors.push(Box::new(collector));
    }

    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        for collector in self.collectors.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            collector(self);
        }
        let mut out = String::new();
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, Entry { family, values }) in entries.iter() {
            let kind = match values {
                Values::Counters(_) => "counter",
                Values::Gauges(_) => "gauge",
                Values::Histograms(_) => "histogram",
            };
            out += &format!("# HELP {name} {}\n# TYPE {name} {kind}\n", family.help);
            match values {
                Values::Counters(cells) => {
                    for (labels, counter) in cells {
                        line(&mut out, name, "", family, labels, None, &counter.get().to_string());
                    }
                }
                Values::Gauges(cells) => {
                    for (labels, gauge) in cells {
                        line(&mut out, name, "", family, labels, None, &gauge.get().to_string());
                    }
                }
                Values::Histograms(cells) => {
                    for (labels, histogram) in cells {
                        render_histogram(&mut out, name, family, labels, &histogram.0);
                    }
                }
            }
        }
        out
    }
}

fn render_histogram(
    out: &mut String,
    name: &str,
    family: &Family,
    labels: &[String],
    cells: &HistogramCells,
) {
    let mut total = 0;
    let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (count, bound) in cells.counts.iter().zip(bounds) {
        total += count.load(Ordering::Relaxed);
        line(out, name, "_bucket", family, labels, Some(&bound), &total.to_string());
    }
    let sum = Duration::from_nanos(cells.sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
    line(out, name, "_sum", family, labels, None, &sum.to_string());
    line(out, name, "_count", family, labels, None, &total.to_string());
}

fn line(
    out: &mut String,
    name: &str,
    suffix: &str,
    family: &Family,
    labels: &[String],
    bound: Option<&str>,
    value: &str,
) {
    out.push_str(name);
    out.push_str(suffix);
    let pairs = family.labels.iter().copied().zip(labels.iter().map(String::as_str));
    for (at, (label, text)) in pairs.chain(bound.map(|bound| ("le", bound))).enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = write!(out, "{label}=\"{text}\"");
    }
    if !labels.is_empty() || bound.is_some() {
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERIES: Family =
        Family { name: "t_queries_total", help: "Queries.", labels: &["proto", "rcode"] };
    const UP: Family = Family { name: "t_up", help: "Whether up.", labels: &[] };
    const TOOK: Family = Family { name: "t_seconds", help: "How long.", labels: &["cache"] };

    #[test]
    fn text_is_what_prometheus_reads() {
        let registry = Registry::new();
        registry.counter(&QUERIES, &["udp", "NOERROR"]).add(2);
        registry.counter(&QUERIES, &["udp", "NOERROR"]).inc();
        registry.counter(&QUERIES, &["tcp", "a\"b\\"]).inc();
        registry.gauge(&UP, &[]).set(0.5);
        let text = registry.render();
        assert!(text.contains("# TYPE t_queries_total counter\n"), "{text}");
        assert!(text.contains("t_queries_total{proto=\"udp\",rcode=\"NOERROR\"} 3\n"), "{text}");
        assert!(text.contains("t_queries_total{proto=\"tcp\",rcode=\"a\\\"b\\\\\"} 1\n"), "{text}");
        assert!(text.contains("t_up 0.5\n"), "{text}");
    }

    #[test]
    fn histograms_are_cumulative() {
        let registry = Registry::new();
        let took = registry.histogram(&TOOK, &["hit"]);
        took.observe(Duration::from_micros(100));
        took.observe(Duration::from_millis(3));
        took.observe(Duration::from_secs(60));
        let text = registry.render();
        assert!(text.contains("t_seconds_bucket{cache=\"hit\",le=\"0.0001\"} 1\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{cache=\"hit\",le=\"0.005\"} 2\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{cache=\"hit\",le=\"10\"} 2\n"), "{text}");
        assert!(text.contains("t_seconds_bucket{cache=\"hit\",le=\"+Inf\"} 3\n"), "{text}");
        assert!(text.contains("t_seconds_count{cache=\"hit\"} 3\n"), "{text}");
    }

    #[test]
    fn collectors_run_before_a_scrape_and_labels_can_go() {
        let registry = Registry::new();
        registry.on_scrape(|registry| registry.gauge(&UP, &[]).set(7.0));
        assert!(registry.render().contains("t_up 7\n"));
        registry.counter(&QUERIES, &["udp", "REFUSED"]).inc();
        registry.retain(&QUERIES, |labels| labels[1] != "REFUSED");
        assert!(!registry.render().contains("REFUSED"));
    }
}
