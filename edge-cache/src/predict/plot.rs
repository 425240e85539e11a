//! Plots of hit ratios, as SVG.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const COLOURS: [RGBColor; 8] = [
    RGBColor(0xc8, 0x55, 0x3d),
    RGBColor(0x16, 0x32, 0x4f),
    RGBColor(0x3d, 0x8b, 0x5c),
    RGBColor(0x8a, 0x5f, 0xa8),
    RGBColor(0xd9, 0x9a, 0x2b),
    RGBColor(0x2b, 0x8f, 0xa8),
    RGBColor(0x8a, 0x93, 0x9c),
    RGBColor(0x5c, 0x3a, 0x21),
];

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is of.
    pub name: String,
    /// Its points, in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// What x is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Bytes of a cache, by powers.
    Size,
    /// Seconds since the log's first request.
    Time,
}

/// Lines of shares (0 to 1) over something. None: there is nothing to draw.
pub fn plot(title: &str, axis: Axis, lines: &[Line]) -> Option<String> {
    let xs = || lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x);
    let (first, last) = (xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max));
    if !first.is_finite() {
        return None;
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (860, 420)).into_drawing_area();
        let drawn = match axis {
            Axis::Size => {
                let (first, last) = (first.max(1.0), last.max(first.max(1.0) * 1.01));
                draw(&area, title, (first..last).log_scale(), "cache size", &|x| size(*x), lines)
            }
            Axis::Time => {
                draw(&area, title, first..last.max(first + 1.0), "time", &|x| time(*x), lines)
            }
        };
        drawn?;
    }
    Some(svg)
}

fn draw<X>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    x: X,
    what: &str,
    label: &dyn Fn(&f64) -> String,
    lines: &[Line],
) -> Option<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE).ok()?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(48)
        .build_cartesian_2d(x, 0.0..100.0)
        .ok()?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(what)
        .y_desc("%")
        .x_labels(8)
        .x_label_formatter(label)
        .draw()
        .ok()?;
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        let points = || line.points.iter().map(|(x, y)| (*x, y * 100.0));
        if line.points.len() < 30 {
            chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled()))).ok()?;
        }
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))
            .ok()?
            .label(line.name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .draw()
        .ok()?;
    area.present().ok()
}

/// Bytes as people write them: `1.5 GiB`.
pub fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut number = bytes;
    while number >= 1023.5 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(number < 99.95 && (number - number.round()).abs() > 0.04);
    format!("{number:.digits$} {}", UNITS.get(unit).unwrap_or(&""))
}

/// Seconds as people write them: `90 s`, `2 h`.
pub fn time(seconds: f64) -> String {
    let (number, unit) = match seconds {
        s if s >= 2.0 * 86_400.0 => (s / 86_400.0, "d"),
        s if s >= 2.0 * 3600.0 => (s / 3600.0, "h"),
        s if s >= 120.0 => (s / 60.0, "min"),
        s => (s, "s"),
    };
    let digits = usize::from((number - number.round()).abs() > 0.04);
    format!("{number:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_svg() {
        let line = Line { name: "lru <1 GiB>".into(), points: vec![(1e6, 0.1), (1e9, 0.9)] };
        for axis in [Axis::Size, Axis::Time] {
            let svg = plot("requests", axis, std::slice::from_ref(&line)).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("polyline") && svg.contains("lru &lt;1 GiB&gt;"), "{svg}");
        }
        assert_eq!(plot("nothing", Axis::Size, &[]), None);
        let point = Line { name: "one".into(), points: vec![(5.0, 0.5)] };
        assert!(plot("one size", Axis::Size, &[point]).is_some());
    }

    #[test]
    fn numbers_are_as_people_write_them() {
        for (bytes, text) in [
            (0.0, "0 B"),
            (1536.0, "1.5 KiB"),
            (1_073_741_824.0, "1 GiB"),
            (150.4 * 1024.0, "150 KiB"),
            (1_073_741_000.0, "1 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in
            [(1.5, "1.5 s"), (90.0, "90 s"), (600.0, "10 min"), (86_400.0, "24 h")]
        {
            assert_eq!(time(seconds), text);
        }
    }
}
