//! Numbers in words: what more of a cache would give, and how much of it is needed.

use super::plot::{size, time};
use super::ttl::Sizing;

/// The size at which a curve of shares over sizes reaches `wanted`, between its points by the logarithm of the size. None:
/// it does not.
pub fn needed(curve: &[(f64, f64)], wanted: f64) -> Option<f64> {
    let at = curve.iter().position(|(_, share)| *share >= wanted)?;
    let (right, above) = curve.get(at).copied()?;
    let Some((left, below)) = at.checked_sub(1).and_then(|at| curve.get(at)).copied() else {
        return Some(right);
    };
    if above - below < 1e-12 || left <= 0.0 {
        return Some(right);
    }
    let part = (wanted - below) / (above - below);
    Some(left * (right / left).powf(part))
}

/// Points of per cent for each GiB between two sizes.
pub fn per_gib(from: (f64, f64), to: (f64, f64)) -> f64 {
    let gib = (to.0 - from.0) / f64::from(1 << 30);
    if gib > 0.0 { (to.1 - from.1) * 100.0 / gib } else { 0.0 }
}

/// Why the sizing by hand is what it is.
pub fn of_sizing(sizing: &Sizing) -> String {
    let Sizing { ttl, rate, mean_size, textbook, requests, objects, unique, spans } = *sizing;
    let span = time(ttl);
    let mut text = format!(
        "{rate:.1} requests/s × {} × {span} = {} by the textbook. ",
        size(mean_size),
        size(textbook)
    );
    if spans == 0 {
        text += "The log is shorter than that, so what follows is of all of it, and the comparison is unfair to the textbook: ";
    }
    text += &format!(
        "Of the {requests:.0} requests in such a span, {objects:.0} are for different objects, of {} together: each is asked \
         for {:.1} times, and stored once.",
        size(unique),
        requests / objects.max(1.0)
    );
    if spans > 0 {
        text += &format!(" The textbook is {:.1} times too much.", sizing.overestimate());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_lies_between_two_points() {
        let curve = [(1e6, 0.2), (1e8, 0.6), (1e10, 0.6)];
        assert_eq!(needed(&curve, 0.1), Some(1e6), "less than the smallest was not looked at");
        assert_eq!(needed(&curve, 0.6), Some(1e8));
        let half = needed(&curve, 0.4).unwrap();
        assert!((half / 1e7 - 1.0).abs() < 1e-9, "{half}");
        assert_eq!(needed(&curve, 0.61), None);
        assert_eq!(needed(&[], 0.1), None);
    }

    #[test]
    fn points_are_per_gib() {
        let gib = f64::from(1 << 30);
        assert!((per_gib((gib, 0.5), (3.0 * gib, 0.6)) - 5.0).abs() < 1e-9);
        assert_eq!(per_gib((gib, 0.5), (gib, 0.6)), 0.0);
    }

    #[test]
    fn the_sizing_is_told_with_its_own_numbers() {
        let sizing = Sizing {
            ttl: 600.0,
            rate: 100.0,
            mean_size: 102_400.0,
            textbook: 6_144_000_000.0,
            requests: 60_000.0,
            objects: 15_000.0,
            unique: 1_536_000_000.0,
            spans: 6,
        };
        let text = of_sizing(&sizing);
        for words in [
            "100.0 requests/s × 100 KiB × 10 min = 5.7 GiB",
            "4.0 times, and stored once",
            "4.0 times too much",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(of_sizing(&Sizing { spans: 0, ..sizing }).contains("shorter"));
    }
}
