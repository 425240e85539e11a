//! The result as tables for people and as a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::cases::Case;
use super::goals::{Goal, Growth, Reloads, Row};
use super::peers::Kind;

/// Rates, costs and latencies.
pub fn rows(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<12} {:<13} {:>9} {:>7} {:>7} {:>7} {:>9} {:>9} {:>6}\n",
        "load", "server", "1000/s", "user", "system", "total", "p50", "p99.9", "lost"
    );
    let mut last = None;
    for row in rows {
        let case = if last == Some(row.case) { "" } else { row.case.name() };
        last = Some(row.case);
        let _ = write!(
            out,
            "{case:<12} {:<13} {:>9.1} {:>7.3} {:>7.3} {:>7.3} {:>9.0} {:>9.0} {:>6}",
            row.server.name(),
            row.kqps,
            row.user,
            row.system,
            row.total,
            row.p50,
            row.p999,
            row.lost
        );
        if row.wrong > 0 {
            let _ = write!(out, "  {} answered wrongly", row.wrong);
        }
        out.push('\n');
    }
    out.push_str("user, system, total: CPU microseconds per answer; p50, p99.9: latency in microseconds with 128 (tcp: 4 × 64) queries under way\n");
    out
}

/// The goals, one a line.
pub fn goals(goals: &[Goal]) -> String {
    let mut out = String::new();
    for Goal { text, measured, limit, met } in goals {
        let verdict = if *met { "ok   " } else { "BELOW" };
        let _ = writeln!(out, "{verdict} {text}: {measured:.3} (goal {limit})");
    }
    out
}

/// What many names cost.
pub fn growth(growth: &[Growth]) -> String {
    let mut out = String::new();
    for g in growth {
        let _ = writeln!(
            out,
            "{}: user CPU {:.3} µs with {} names, {:.3} with {}, {:.3} when all of these are asked for",
            g.case.name(),
            g.few,
            g.few_names,
            g.many,
            g.many_names,
            g.all
        );
    }
    out
}

/// What reloading costs.
pub fn reloads(reloads: &[Reloads]) -> String {
    let mut out = String::new();
    for r in reloads {
        let _ = writeln!(
            out,
            "{}: {} reloads of {:.2} s during {} answers: {} lost, {} wrong; latency p50 {:.0} µs (without {:.0}), p99.9 {:.0} (without {:.0}), \
             longest {:.0}",
            r.server.name(),
            r.reloads,
            r.each,
            r.answered,
            r.lost,
            r.wrong,
            r.p50,
            r.p50_before,
            r.p999,
            r.p999_before,
            r.longest
        );
    }
    out
}

/// Bars of user and system CPU per answer, a panel per load.
pub fn plot(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    let cases: Vec<Case> =
        Case::ALL.into_iter().filter(|case| rows.iter().any(|row| row.case == *case)).collect();
    anyhow::ensure!(!cases.is_empty(), "there is nothing to plot");
    let height = 210 * u32::try_from(cases.len().div_ceil(2))?;
    let area = SVGBackend::new(path, (1000, height)).into_drawing_area();
    draw(rows, &cases, &area).with_context(|| format!("cannot draw {}", path.display()))
}

const USER: RGBColor = RGBColor(0xc8, 0x55, 0x3d);
const SYSTEM: RGBColor = RGBColor(0x8a, 0x93, 0x9c);

fn draw(
    rows: &[Row],
    cases: &[Case],
    area: &DrawingArea<SVGBackend<'_>, Shift>,
) -> anyhow::Result<()> {
    area.fill(&WHITE)?;
    let panels = area.split_evenly((cases.len().div_ceil(2), 2));
    for (case, panel) in cases.iter().zip(&panels) {
        let of: Vec<&Row> = rows.iter().filter(|row| row.case == *case).collect();
        // PowerDNS and BIND are off the scale on which the others differ: their bars are cut.
        let scale = of
            .iter()
            .filter(|row| !matches!(row.server, Kind::Pdns | Kind::Bind | Kind::Hickory))
            .fold(1.0, |most: f64, row| most.max(row.total));
        let end = scale * 1.25;
        let mut chart = ChartBuilder::on(panel)
            .caption(
                format!("{}: CPU µs per answer, user (red) and system", case.name()),
                ("sans-serif", 15),
            )
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(96)
            .build_cartesian_2d(0.0..end, 0.0..of.len() as f64)?;
        chart.configure_mesh().disable_y_mesh().disable_y_axis().light_line_style(WHITE).draw()?;
        for (row, at) in of.iter().rev().zip(0..) {
            let (low, high) = (f64::from(at) + 0.15, f64::from(at) + 0.85);
            let user = row.user.min(end);
            let total = row.total.min(end);
            chart.draw_series([
                Rectangle::new([(0.0, low), (user, high)], USER.filled()),
                Rectangle::new([(user, low), (total, high)], SYSTEM.filled()),
            ])?;
            let label = format!("{:.2} / {:.2}", row.user, row.total);
            chart.draw_series([Text::new(label, (end * 0.84, high), ("sans-serif", 12))])?;
            let (x, y) = chart.backend_coord(&(0.0, high));
            let (left, top) = panel.get_base_pixel();
            let style = ("sans-serif", 12).into_font().into_text_style(panel);
            panel.draw_text(row.server.name(), &style, (x - left - 90, y - top))?;
        }
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            case: Case::EcsRandom,
            server: Kind::Gdnsd,
            kqps: 300.25,
            user: 0.93,
            system: 2.1,
            total: 3.04,
            user_seconds: 1.0,
            p50: 700.0,
            p999: 1500.0,
            wrong: 2,
            lost: 0,
        }
    }

    #[test]
    fn a_line_has_all_of_a_row() {
        let table = rows(&[row()]);
        let line = table.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words[..9],
            ["ecs-random", "gdnsd", "300.2", "0.930", "2.100", "3.040", "700", "1500", "0"]
        );
        assert!(line.ends_with("2 answered wrongly"));
    }

    #[test]
    fn a_goal_that_is_not_met_is_seen() {
        let goal = Goal { text: "nx: x".to_owned(), measured: 0.61234, limit: 0.6, met: false };
        assert_eq!(goals(&[goal]), "BELOW nx: x: 0.612 (goal 0.6)\n");
    }
}
