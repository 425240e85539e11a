//! Hit ratios as a table for people, as JSON for scripts, as a plot for the README, and held against the goals.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::replay::{Policy, Ratios, Row, SIZES};

/// The store must not be below exact LRU in object hit ratio by more than this.
const TOLERANCE: f64 = 0.005;
/// The sizes at which the goal holds, in thousandths: those of a memory tier that is small against its working set.
/// Above them, and in bytes, TinyLFU falls behind LRU when the popular objects change; the table shows by how much.
const GOAL_SIZES: [u64; 2] = [1, 10];

fn find(rows: &[Row], mix: &str, size: u64, policy: Policy) -> Option<Ratios> {
    let row = rows.iter().find(|r| r.mix == mix && r.size == size && r.policy == policy);
    row.map(|row| row.ratios)
}

fn mixes(rows: &[Row]) -> Vec<&'static str> {
    let mut mixes: Vec<&'static str> = rows.iter().map(|row| row.mix).collect();
    mixes.dedup();
    mixes
}

/// The table: object hit ratio / byte hit ratio, in per cent.
pub fn table(rows: &[Row]) -> String {
    let mut out =
        String::from("object / byte hit ratio in %, cache size in % of the footprint\n\n");
    let _ = write!(out, "{:<12} {:>6} {:>9}", "mix", "size", "MB");
    for policy in Policy::ALL {
        let _ = write!(out, " {:>13}", policy.name());
    }
    out.push('\n');
    for mix in mixes(rows) {
        for size in SIZES {
            let Some(row) = rows.iter().find(|row| row.mix == mix && row.size == size) else {
                continue;
            };
            let megabytes = row.capacity as f64 / 1e6;
            let _ = write!(out, "{mix:<12} {:>6} {megabytes:>9.1}", size as f64 / 10.0);
            for policy in Policy::ALL {
                if let Some(r) = find(rows, mix, size, policy) {
                    let _ = write!(out, "   {:>4.1} / {:>4.1}", r.object * 100.0, r.byte * 100.0);
                }
            }
            out.push('\n');
        }
    }
    out
}

/// What is below its goal, a line each.
pub fn below_goal(rows: &[Row]) -> Vec<String> {
    let mut below = Vec::new();
    for mix in mixes(rows) {
        for size in GOAL_SIZES {
            let (Some(store), Some(lru)) =
                (find(rows, mix, size, Policy::Store), find(rows, mix, size, Policy::Lru))
            else {
                continue;
            };
            if store.object < lru.object - TOLERANCE {
                below.push(format!(
                    "{mix} at {} %: the store's object hit ratio is {:.1} %, that of LRU {:.1} %",
                    size as f64 / 10.0,
                    store.object * 100.0,
                    lru.object * 100.0
                ));
            }
        }
    }
    below
}

/// What is written to the JSON file.
pub fn json(rows: &[Row], requests: usize, quick: bool) -> serde_json::Value {
    serde_json::json!({ "benchmark": "hit_rate", "requests": requests, "quick": quick, "rows": rows })
}

/// One panel per mix and kind of ratio, a line per policy.
pub fn plot(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let mixes = mixes(rows);
    anyhow::ensure!(!mixes.is_empty(), "there is nothing to plot");
    let (width, height) = (360 * u32::try_from(mixes.len())?, 640);
    let area = SVGBackend::new(path, (width, height)).into_drawing_area();
    draw(rows, &mixes, &area).with_context(|| format!("cannot draw {}", path.display()))
}

fn draw(
    rows: &[Row],
    mixes: &[&'static str],
    area: &DrawingArea<SVGBackend<'_>, Shift>,
) -> anyhow::Result<()> {
    const COLOURS: [RGBColor; 3] =
        [RGBColor(0xc8, 0x55, 0x3d), RGBColor(0x16, 0x32, 0x4f), RGBColor(0x8a, 0x93, 0x9c)];
    type Pick = fn(Ratios) -> f64;
    const KINDS: [(&str, Pick); 2] = [("objects", |r| r.object), ("bytes", |r| r.byte)];
    area.fill(&WHITE)?;
    let smallest = SIZES[0] as f64 / 10.0;
    let largest = SIZES[SIZES.len() - 1] as f64 / 10.0;
    let panels = area.split_evenly((KINDS.len(), mixes.len()));
    for (panel, place) in panels.iter().zip(0..) {
        let (kind, pick) = KINDS[place / mixes.len()];
        let mix = mixes[place % mixes.len()];
        let mut chart = ChartBuilder::on(panel)
            .caption(format!("{mix}: {kind}"), ("sans-serif", 17))
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
        for (policy, colour) in Policy::ALL.into_iter().zip(COLOURS) {
            let points: Vec<(f64, f64)> = SIZES
                .iter()
                .filter_map(|size| {
                    let ratios = find(rows, mix, *size, policy)?;
                    Some((*size as f64 / 10.0, pick(ratios) * 100.0))
                })
                .collect();
            let dots = points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(dots)?;
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(policy.name())
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

    fn rows(store: f64) -> Vec<Row> {
        let row = |policy, object| Row {
            mix: "zipf-web",
            size: 10,
            capacity: 1 << 20,
            policy,
            ratios: Ratios { object, byte: 0.25 },
        };
        vec![row(Policy::Store, store), row(Policy::Lru, 0.5), row(Policy::Fifo, 0.4)]
    }

    #[test]
    fn the_table_has_a_line_per_mix_and_size() {
        let table = table(&rows(0.6));
        assert!(table.contains("60.0 / 25.0"), "{table}");
        assert_eq!(table.lines().filter(|line| line.starts_with("zipf-web")).count(), 1);
    }

    #[test]
    fn a_store_below_lru_is_named() {
        assert!(below_goal(&rows(0.5)).is_empty());
        let below = below_goal(&rows(0.45));
        assert!(below.len() == 1 && below[0].contains("45.0 %"), "{below:?}");
    }
}
