//! Hit ratios as a table for people, as JSON for scripts, as plots for the README.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;

use crate::replay::{Count, Ratios};

/// One result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The trace.
    pub trace: String,
    /// The cache's size in thousandths of the footprint.
    pub size: u64,
    /// The cache's capacity in bytes.
    pub capacity: u64,
    /// What was replayed against.
    pub policy: &'static str,
    /// What was counted.
    pub count: Count,
    /// Whether the same trace gives the same hits each time.
    pub exact: bool,
    /// Nanoseconds per request, in this run on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns: Option<f64>,
    /// Bytes of memory per object that is held, beside keys and values, where that says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead: Option<f64>,
    /// Bytes written to disk per byte asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<f64>,
}

impl Row {
    /// One that says what was counted.
    pub fn new(trace: &str, size: u64, capacity: u64, policy: &'static str, count: Count) -> Self {
        let (exact, ns, overhead, written) = (true, None, None, None);
        let trace = trace.to_owned();
        Self { trace, size, capacity, policy, count, exact, ns, overhead, written }
    }

    /// Requests that went to the origin, after the warm-up.
    pub const fn origin(&self) -> (u64, u64) {
        (self.count.requests - self.count.hits, self.count.bytes - self.count.hit_bytes)
    }
}

/// The values of a field, in the order in which they come up.
fn distinct<T: PartialEq>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<T> {
    let mut all = Vec::new();
    for row in rows {
        let value = of(row);
        if !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

/// The result of this trace, size and policy.
pub fn find(rows: &[Row], trace: &str, size: u64, policy: &str) -> Option<Ratios> {
    let row = rows.iter().find(|r| r.trace == trace && r.size == size && r.policy == policy);
    row.map(|row| row.count.ratios())
}

/// A table per trace: a line per policy; object and byte hit ratio per size, then nanoseconds per request.
pub fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    let sizes = distinct(rows, |row| row.size);
    for trace in distinct(rows, |row| row.trace.clone()) {
        let _ = write!(out, "{trace:<14}");
        for size in &sizes {
            let _ = write!(out, "{:>14}", format!("{} %", *size as f64 / 10.0));
        }
        out.push_str("  origin GB at 10 %   ns/request   B/object   written\n");
        for policy in distinct(rows, |row| row.policy) {
            let mine = |row: &&Row| row.trace == trace && row.policy == policy;
            if !rows.iter().any(|row| mine(&row)) {
                continue;
            }
            let _ = write!(out, "{policy:<14}");
            for size in &sizes {
                match find(rows, &trace, *size, policy) {
                    Some(Ratios { object, byte }) => {
                        let cell = format!("{object:.3}/{byte:.3}");
                        let _ = write!(out, "{cell:>14}");
                    }
                    None => out.push_str("              "),
                }
            }
            let of = |number: fn(&Row) -> Option<f64>| {
                let all: Vec<f64> = rows.iter().filter(mine).filter_map(number).collect();
                let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
                if all.is_empty() { String::new() } else { format!("{mean:.0}") }
            };
            let tenth = rows.iter().filter(mine).find(|row| row.size == 100);
            let origin =
                tenth.map_or(String::new(), |row| format!("{:.1}", row.origin().1 as f64 / 1e9));
            let (ns, overhead) = (of(|row| row.ns), of(|row| row.overhead));
            let written = rows.iter().filter(mine).find_map(|row| row.written);
            let written = written.map_or(String::new(), |share| format!("{share:.3}"));
            let line = format!("{origin:>19}{ns:>13}{overhead:>11}{written:>10}");
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out.push('\n');
    }
    out
}

/// A panel per trace and kind of ratio, a line per policy.
pub fn plot(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let traces = distinct(rows, |row| row.trace.clone());
    anyhow::ensure!(!traces.is_empty(), "there is nothing to plot");
    let size = (360 * u32::try_from(traces.len())?, 640);
    let area = SVGBackend::new(path, size).into_drawing_area();
    draw(rows, &traces, &area).with_context(|| format!("cannot draw {}", path.display()))
}

fn draw(
    rows: &[Row],
    traces: &[String],
    area: &DrawingArea<SVGBackend<'_>, Shift>,
) -> anyhow::Result<()> {
    type Pick = fn(Ratios) -> f64;
    const KINDS: [(&str, Pick); 2] = [("objects", |r| r.object), ("bytes", |r| r.byte)];
    area.fill(&WHITE)?;
    let sizes = distinct(rows, |row| row.size);
    let percent = |size: &u64| *size as f64 / 10.0;
    let smallest = sizes.iter().min().map_or(0.1, percent);
    let largest = sizes.iter().max().map_or(100.0, percent).max(smallest * 1.1);
    let panels = area.split_evenly((KINDS.len(), traces.len()));
    for (panel, place) in panels.iter().zip(0..) {
        let (kind, pick) = KINDS[place / traces.len()];
        let trace = &traces[place % traces.len()];
        let mut chart = ChartBuilder::on(panel)
            .caption(format!("{trace}: {kind}"), ("sans-serif", 17))
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(44)
            .build_cartesian_2d((smallest..largest).log_scale(), 0.0..100.0)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("cache size, % of footprint")
            .y_desc("hit ratio, %")
            .x_label_formatter(&|x| format!("{x}"))
            .draw()?;
        for (policy, number) in distinct(rows, |row| row.policy).into_iter().zip(0..) {
            let colour = Palette99::pick(number).to_rgba();
            let points: Vec<(f64, f64)> = sizes
                .iter()
                .filter_map(|size| {
                    let ratios = find(rows, trace, *size, policy)?;
                    Some((percent(size), pick(ratios) * 100.0))
                })
                .collect();
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(policy)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_per_policy() {
        let count = Count { requests: 10, hits: 6, bytes: 100, hit_bytes: 25 };
        let row = |policy, size| Row::new("web-us", size, 1 << 20, policy, count);
        let table = table(&[row("LRU", 10), row("LRU", 100), row("FIFO", 10)]);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].contains("1 %") && lines[0].contains("10 %"), "{table}");
        assert!(lines[1].starts_with("LRU") && lines[1].matches("0.600/0.250").count() == 2);
        assert!(lines[2].starts_with("FIFO") && lines[2].matches("0.600/0.250").count() == 1);
    }
}
