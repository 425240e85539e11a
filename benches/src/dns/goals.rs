//! What was measured, and the goals it is held against. Goals are ratios within one run: no figure of another machine
//! or another day counts.

use serde::Serialize;

use super::cases::Case;
use super::peers::Kind;

/// One server under one load in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// The load.
    pub case: Case,
    /// The server.
    pub server: Kind,
    /// Queries answered as expected.
    pub answered: u64,
    /// Queries answered otherwise.
    pub wrong: u64,
    /// Queries without an answer.
    pub lost: u64,
    /// Thousand answers a second.
    pub kqps: f64,
    /// CPU in the program, microseconds per answer.
    pub user: f64,
    /// CPU in the kernel, microseconds per answer.
    pub system: f64,
    /// CPU in the program, seconds in all.
    pub user_seconds: f64,
    /// CPU in the kernel, seconds in all.
    pub system_seconds: f64,
    /// Median latency, microseconds.
    pub p50: f64,
    /// Latency that one in a thousand exceeds, microseconds.
    pub p999: f64,
}

/// Medians over all rounds of one server under one load. The kernel tells user from system time by samples, too few in
/// one round: their shares are those of all rounds together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Row {
    /// The load.
    pub case: Case,
    /// The server.
    pub server: Kind,
    /// Thousand answers a second.
    pub kqps: f64,
    /// Microseconds per answer.
    pub user: f64,
    /// Microseconds per answer.
    pub system: f64,
    /// User and system together.
    pub total: f64,
    /// User CPU seconds of all rounds together.
    pub user_seconds: f64,
    /// Median latency, microseconds.
    pub p50: f64,
    /// Latency that one in a thousand exceeds, microseconds.
    pub p999: f64,
    /// In all rounds together.
    pub wrong: u64,
    /// In all rounds together.
    pub lost: u64,
}

/// The middle value; of an even number the upper of the two.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Medians by load and server.
pub fn rows(rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in Case::ALL {
        for server in case.servers() {
            let of: Vec<&Round> =
                rounds.iter().filter(|r| r.case == case && r.server == *server).collect();
            if of.is_empty() {
                continue;
            }
            let median_of = |f: fn(&Round) -> f64| median(of.iter().map(|round| f(round)));
            let sum = |f: fn(&Round) -> f64| of.iter().map(|round| f(round)).sum::<f64>();
            let (user_seconds, system_seconds) =
                (sum(|r| r.user_seconds), sum(|r| r.system_seconds));
            let share = user_seconds / (user_seconds + system_seconds).max(1e-9);
            let total = median_of(|r| r.user + r.system);
            rows.push(Row {
                case,
                server: *server,
                kqps: median_of(|r| r.kqps),
                user: total * share,
                system: total * (1.0 - share),
                total,
                user_seconds,
                p50: median_of(|r| r.p50),
                p999: median_of(|r| r.p999),
                wrong: of.iter().map(|r| r.wrong).sum(),
                lost: of.iter().map(|r| r.lost).sum(),
            });
        }
    }
    rows
}

/// A server with many names beside one with few.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Growth {
    /// What is asked of both: the names of the small one, or names that neither has.
    pub case: Case,
    /// User CPU per answer with few names, microseconds.
    pub few: f64,
    /// User CPU seconds in all, with few and with many names: what the kernel's samples were taken of.
    pub seconds: [f64; 2],
    /// User CPU per answer with many names, for the same queries.
    pub many: f64,
    /// The same, asked for all of the many names: memory that no cache holds.
    pub all: f64,
    /// Names of the small one.
    pub few_names: u64,
    /// Names of the large one.
    pub many_names: u64,
}

/// A load while the server reloads once a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reloads {
    /// The server.
    pub server: Kind,
    /// Reloads done.
    pub reloads: u64,
    /// How long one takes, seconds.
    pub each: f64,
    /// Queries answered meanwhile.
    pub answered: u64,
    /// Of them wrong.
    pub wrong: u64,
    /// Queries not answered.
    pub lost: u64,
    /// Median latency without reloads, microseconds.
    pub p50_before: f64,
    /// The same with them.
    pub p50: f64,
    /// Latency that one in a thousand exceeds without reloads, microseconds.
    pub p999_before: f64,
    /// The same with them.
    pub p999: f64,
    /// The longest of all.
    pub longest: f64,
}

/// A goal and whether it is met.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What must hold.
    pub text: String,
    /// What was measured.
    pub measured: f64,
    /// The most (or least) that it may be.
    pub limit: f64,
    /// Whether it is.
    pub met: bool,
}

/// Ticks at which the kernel samples who has the CPU. Most kernels have as many or more.
pub const SAMPLES_A_SECOND: f64 = 250.0;

/// How far the ratio of two sampled times may be off by chance: two standard deviations.
fn chance(seconds: [f64; 2]) -> f64 {
    let [a, b] = seconds.map(|seconds| (seconds * SAMPLES_A_SECOND).max(1.0));
    2.0 * (1.0 / a + 1.0 / b).sqrt()
}

/// The most that reloads may make of the median latency, though they take their time from the same core.
const RELOAD_P50: f64 = 1.25;
/// The share of a reload's time that all but one in a thousand answers come within: none waits for it.
const RELOAD_WAIT: f64 = 0.1;
/// No answer's cost grows with the names: what the tables' own size may cost.
const GROWTH: f64 = 1.25;
/// Above a loop that makes the same system calls.
const ABOVE_ECHO: f64 = 1.15;

/// Everything that can be held against a goal.
#[derive(Clone, Debug)]
pub struct Measured<'a> {
    /// Medians.
    pub rows: &'a [Row],
    /// With and without many names.
    pub growth: &'a [Growth],
    /// While reloading.
    pub reloads: &'a [Reloads],
    /// Short rounds: user times count with what chance may have done to them.
    pub quick: bool,
}

impl Measured<'_> {
    fn find(&self, case: Case, server: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == case && row.server == server)
    }

    /// All goals for which there are figures.
    pub fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        let user = |row: &Row| row.user;
        let total = |row: &Row| row.total;
        let mut ratio = |case: Case, what: &str, f: fn(&Row) -> f64, other: Kind, limit: f64| {
            let (Some(ours), Some(theirs)) =
                (self.find(case, Kind::Geodns), self.find(case, other))
            else {
                return;
            };
            let measured = f(ours) / f(theirs).max(1e-9);
            let sampled = self.quick && what == "user";
            let seconds = [ours.user_seconds, theirs.user_seconds];
            let allowance = if sampled { chance(seconds) } else { 0.0 };
            goals.push(Goal {
                text: format!("{}: {what} CPU, times that of {}", case.name(), other.name()),
                measured,
                limit,
                met: measured <= limit * (1.0 + allowance),
            });
        };
        ratio(Case::EcsRandom, "user", user, Kind::Gdnsd, 0.6);
        ratio(Case::EcsRandom, "user", user, Kind::KnotGeo, 0.2);
        ratio(Case::EcsRandom, "total", total, Kind::Gdnsd, 1.0);
        for case in [Case::Static, Case::Nx] {
            ratio(case, "user", user, Kind::Gdnsd, 1.0);
            ratio(case, "user", user, Kind::Knot, 0.5);
            ratio(case, "total", total, Kind::Nsd, 1.0);
            ratio(case, "total", total, Kind::Knot, 1.0);
        }
        for case in Case::ALL {
            ratio(case, "total", total, Kind::Echo, ABOVE_ECHO);
        }
        if let (Some(ours), Some(knot)) =
            (self.find(Case::Tcp, Kind::Geodns), self.find(Case::Tcp, Kind::Knot))
        {
            let measured = ours.kqps / knot.kqps.max(1e-9);
            let text = "tcp: answers a second, at least times those of Knot".to_owned();
            goals.push(Goal { text, measured, limit: 1.0, met: measured >= 1.0 });
        }
        for growth in self.growth {
            let measured = growth.many / growth.few.max(1e-9);
            let allowance = if self.quick { chance(growth.seconds) } else { 0.0 };
            goals.push(Goal {
                text: format!(
                    "{}: user CPU with {} names, times that with {}",
                    growth.case.name(),
                    growth.many_names,
                    growth.few_names
                ),
                measured,
                limit: GROWTH,
                met: measured <= GROWTH * (1.0 + allowance),
            });
        }
        self.reload_goals(&mut goals);
        self.faultless(&mut goals);
        goals
    }

    fn reload_goals(&self, goals: &mut Vec<Goal>) {
        for reloads in self.reloads.iter().filter(|reloads| reloads.server == Kind::Geodns) {
            let measured = reloads.p50 / reloads.p50_before.max(1e-9);
            goals.push(Goal {
                text: "a reload each second: median latency, times that without".to_owned(),
                measured,
                limit: RELOAD_P50,
                met: measured <= RELOAD_P50 && reloads.reloads > 0,
            });
            let measured = reloads.p999 / 1e6 / reloads.each.max(1e-9);
            goals.push(Goal {
                text: "a reload each second: latency p99.9, times what a reload takes".to_owned(),
                measured,
                limit: RELOAD_WAIT,
                met: measured <= RELOAD_WAIT,
            });
            goals.push(Goal {
                text: "a reload each second: queries lost or answered wrongly".to_owned(),
                measured: (reloads.lost + reloads.wrong) as f64,
                limit: 0.0,
                met: reloads.lost + reloads.wrong == 0,
            });
        }
    }

    /// A server that loses queries has not done the same work.
    fn faultless(&self, goals: &mut Vec<Goal>) {
        let faults = |row: &Row| row.wrong + row.lost;
        let ours: u64 = self.rows.iter().filter(|row| row.server == Kind::Geodns).map(faults).sum();
        goals.push(Goal {
            text: "all loads: queries lost or answered wrongly".to_owned(),
            measured: ours as f64,
            limit: 0.0,
            met: ours == 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(case: Case, server: Kind, user: f64, kqps: f64) -> Round {
        Round {
            case,
            server,
            answered: 1,
            wrong: 0,
            lost: 0,
            kqps,
            user,
            system: 2.0,
            user_seconds: user,
            system_seconds: 2.0,
            p50: 1.0,
            p999: 2.0,
        }
    }

    fn goals(rounds: &[Round], quick: bool) -> Vec<Goal> {
        Measured { rows: &rows(rounds), growth: &[], reloads: &[], quick }.goals()
    }

    #[test]
    fn totals_are_medians_and_their_parts_are_shares_of_all_rounds() {
        let rounds = [0.5, 1.5, 1.0].map(|user| round(Case::Nx, Kind::Geodns, user, 1.0));
        let rows = rows(&rounds);
        assert_eq!((rows.len(), rows[0].total, rows[0].user_seconds), (1, 3.0, 3.0));
        assert!((rows[0].user - 1.0).abs() < 1e-9 && (rows[0].system - 2.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_above_its_goal_is_not_met() {
        let theirs = round(Case::EcsRandom, Kind::Gdnsd, 1.0, 1.0);
        for (ours, met) in [(0.59, true), (0.61, false)] {
            let rounds = [round(Case::EcsRandom, Kind::Geodns, ours, 1.0), theirs];
            let goals = goals(&rounds, false);
            let goal = goals.iter().find(|goal| goal.text.contains("user")).unwrap();
            assert_eq!(goal.met, met, "{ours}");
        }
        // Half a percent above is within what a few hundred samples tell.
        let rounds = [round(Case::EcsRandom, Kind::Geodns, 0.61, 1.0), theirs];
        assert!(goals(&rounds, true).iter().all(|goal| goal.met));
    }

    #[test]
    fn rates_must_be_at_least_theirs() {
        for (ours, met) in [(9.0, false), (10.0, true)] {
            let rounds = [
                round(Case::Tcp, Kind::Geodns, 1.0, ours),
                round(Case::Tcp, Kind::Knot, 1.0, 10.0),
            ];
            assert_eq!(goals(&rounds, false)[0].met, met);
        }
    }

    #[test]
    fn a_lost_query_is_below_the_goal() {
        let mut lossy = round(Case::Static, Kind::Geodns, 1.0, 1.0);
        assert!(goals(&[lossy], false).iter().all(|goal| goal.met));
        lossy.lost = 1;
        assert!(!goals(&[lossy], false).iter().all(|goal| goal.met));
    }
}
