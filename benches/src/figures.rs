//! The goals of the issue, the published figures that the web mix is held against, and the figures that are committed: a
//! later run that falls behind those fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::replay::Ratios;
use crate::report::{Row, find};

/// The class that the goals are about.
pub const GOAL_CLASS: &str = "web-us";
/// What a committed figure may fall by.
const TOLERANCE: f64 = 0.003;
/// What is left of a difference when its last shown digit has been rounded.
const ROUNDING: f64 = 0.000_5;
/// Ratios that differ by less are a tie.
pub const TIE: f64 = 0.005;

/// Object and byte hit ratios of the research's own simulator on its own web mix (metropolis in the United States, 2025):
/// thousandths of the footprint, policy, ratios. What a stream of ours gives for the same policies tells how near it is.
pub const ANCHORS: [(u64, &str, f64, f64); 14] = [
    (10, "FIFO", 0.637, 0.625),
    (10, "LRU", 0.678, 0.658),
    (10, "SIEVE", 0.729, 0.698),
    (10, "S3-FIFO", 0.734, 0.708),
    (10, "moka", 0.798, 0.595),
    (10, "quick_cache", 0.716, 0.690),
    (10, "foyer", 0.734, 0.708),
    (10, "GDSF", 0.830, 0.603),
    (10, "Belady-size", 0.871, 0.687),
    (10, "Belady", 0.791, 0.768),
    (100, "LRU", 0.833, 0.818),
    (100, "S3-FIFO", 0.845, 0.830),
    (100, "moka", 0.859, 0.731),
    (100, "GDSF", 0.886, 0.747),
];

/// Our own beside the research's.
pub fn anchors(rows: &[Row]) -> String {
    let mut out = format!("{:<26}{:>15}{:>15}\n", GOAL_CLASS, "research", "here");
    for (size, policy, object, byte) in ANCHORS {
        let Some(got) = find(rows, GOAL_CLASS, size, policy) else { continue };
        let name = format!("{policy}, {} %", size as f64 / 10.0);
        let wanted = format!("{object:.3}/{byte:.3}");
        let got = format!("{:.3}/{:.3}", got.object, got.byte);
        let _ = writeln!(out, "{name:<26}{wanted:>15}{got:>15}");
    }
    out
}

/// A goal, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What is measured.
    pub what: &'static str,
    /// What it should be.
    pub goal: f64,
    /// Whether it should be no more, not no less.
    pub at_most: bool,
    /// What it is.
    pub measured: f64,
}

impl Goal {
    /// Whether it is reached, to the digit that is shown.
    pub fn is_met(&self) -> bool {
        match self.at_most {
            true => self.measured <= self.goal + ROUNDING,
            false => self.measured >= self.goal - ROUNDING,
        }
    }

    /// Whether it is a ratio that is missed by less than what another sample of the same trace may give: half a point.
    pub fn is_tie(&self) -> bool {
        !self.is_met() && !self.at_most && self.measured > self.goal - TIE
    }

    /// Whether it is missed by more than that.
    pub fn is_missed(&self) -> bool {
        !self.is_met() && !self.is_tie()
    }
}

/// Goals as lines.
pub fn goals(goals: &[Goal]) -> String {
    let mut out = format!("{:<52}{:>9}{:>10}\n", "goal", "", "measured");
    for goal in goals {
        let sign = if goal.at_most { "<=" } else { ">=" };
        let wanted = format!("{sign} {:.3}", goal.goal);
        let verdict = match goal {
            goal if goal.is_missed() => "   missed",
            goal if goal.is_tie() => "   a tie: within half a point",
            _ => "",
        };
        let _ = writeln!(out, "{:<52}{wanted:>9}{:>10.3}{verdict}", goal.what, goal.measured);
    }
    out
}

/// The committed figures: object and byte hit ratio by trace, size and policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures(BTreeMap<String, (f64, f64)>);

impl Figures {
    /// Of these results, rounded to what a run on another machine gives as well.
    pub fn of(rows: &[Row]) -> Self {
        let rounded = |ratio: f64| (ratio * 10_000.0).round() / 10_000.0;
        let figure = |row: &Row| {
            let Ratios { object, byte } = row.count.ratios();
            let key = format!("{}, {} %, {}", row.trace, row.size as f64 / 10.0, row.policy);
            (key, (rounded(object), rounded(byte)))
        };
        Self(rows.iter().filter(|row| row.exact).map(figure).collect())
    }

    /// What has fallen behind `committed`, a line each, and what is missing.
    pub fn behind(&self, committed: &Self) -> Vec<String> {
        let mut behind = Vec::new();
        for (key, (object, byte)) in &committed.0 {
            let Some((object_now, byte_now)) = self.0.get(key) else {
                behind.push(format!("{key}: was not measured"));
                continue;
            };
            for (kind, was, now) in [("object", object, object_now), ("byte", byte, byte_now)] {
                if *now < was - TOLERANCE {
                    behind.push(format!("{key}: {kind} hit ratio {now:.4}, committed {was:.4}"));
                }
            }
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Count;

    fn row(policy: &'static str, hits: u64, exact: bool) -> Row {
        let count = Count { requests: 1_000, hits, bytes: 1_000, hit_bytes: hits };
        Row { exact, ..Row::new(GOAL_CLASS, 10, 1 << 20, policy, count) }
    }

    #[test]
    fn a_fall_of_more_than_three_thousandths_is_behind() {
        let committed = Figures::of(&[row("LRU", 700, true), row("moka", 700, false)]);
        let now = |hits| Figures::of(&[row("LRU", hits, true), row("moka", 100, false)]);
        assert_eq!(now(800).behind(&committed), Vec::<String>::new());
        assert!(now(697).behind(&committed).is_empty());
        let behind = now(696).behind(&committed);
        assert!(behind.len() == 2 && behind[0].contains("0.6960, committed 0.7000"), "{behind:?}");
        assert_eq!(Figures::default().behind(&committed).len(), 1);
    }

    #[test]
    fn a_goal_is_met_from_either_side() {
        let goal = |at_most, measured| Goal { what: "", goal: 0.8, at_most, measured }.is_met();
        assert!(goal(false, 0.7996) && !goal(false, 0.799) && goal(false, 0.9));
        let tie = |measured| Goal { what: "", goal: 0.8, at_most: false, measured };
        assert!(tie(0.7951).is_tie() && !tie(0.7951).is_missed());
        assert!(!tie(0.7949).is_tie() && tie(0.7949).is_missed());
        assert!(!tie(0.7996).is_tie() && !tie(0.7996).is_missed());
        assert!(goal(true, 0.8004) && !goal(true, 0.801) && goal(true, 0.1));
    }

    #[test]
    fn anchors_stand_beside_what_was_measured() {
        let text = anchors(&[row("LRU", 680, true)]);
        let line = text.lines().find(|line| line.starts_with("LRU, 1 %")).unwrap();
        assert!(line.contains("0.678/0.658") && line.contains("0.680/0.680"), "{line}");
    }
}
