//! Rehearsals with what lies outside: query logs of any size, and calls of the admin API.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use shared::config::Rate;
use shared::health::State;
use shared::io::admin::{Answer, Call};
use tokio::sync::Mutex;

use super::admin::Status;
use super::node::Node;
use crate::health::{Facts, Intake, Observed};
use crate::whatif::population::Fineness;
use crate::whatif::report::Traffic;
use crate::whatif::{Change, Rehearsal, log, parse_weight};
use crate::world::World;
use crate::zone::Zones;

/// A line of a log at most: a name takes 1 KiB, escaped.
const MAX_LINE: u64 = 64 << 10;

/// What became of a log's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// All lines but empty ones.
    pub lines: u64,
    /// Those that could not be read.
    pub unreadable: u64,
    /// The first of them: its number, and why.
    pub first_problem: Option<(u64, String)>,
}

/// Opens a log; `-` is standard input.
///
/// # Errors
/// It cannot be read.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(io::BufReader::with_capacity(1 << 20, std::fs::File::open(path)?)))
}

/// Adds a log's queries to a rehearsal, line by line. `progress` is told of the number of lines now and then.
///
/// # Errors
/// The log cannot be read on.
pub fn replay(
    mut log: impl BufRead,
    rehearsal: &mut Rehearsal<'_>,
    mut progress: impl FnMut(u64),
) -> io::Result<Replayed> {
    let mut replayed = Replayed::default();
    let mut line = Vec::new();
    let mut number = 0_u64;
    loop {
        line.clear();
        if log.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(replayed);
        }
        number += 1;
        if number.is_multiple_of(1 << 14) {
            progress(number);
        }
        let parsed = if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
            skip_line(&mut log)?;
            Err("the line is longer than 64 KiB".to_owned())
        } else if line.trim_ascii().is_empty() {
            continue;
        } else {
            log::parse(line.trim_ascii())
        };
        replayed.lines += 1;
        match parsed {
            Ok(Some(query)) => rehearsal.add_query(&query),
            Ok(None) => {}
            Err(why) => {
                replayed.unreadable += 1;
                replayed.first_problem.get_or_insert((number, why));
            }
        }
    }
}

fn skip_line(log: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffered = log.fill_buf()?;
        let end = buffered.iter().position(|byte| *byte == b'\n');
        let (length, is_end) = match end {
            Some(at) => (at + 1, true),
            None => (buffered.len(), buffered.is_empty()),
        };
        log.consume(length);
        if is_end {
            return Ok(());
        }
    }
}

/// What a node's status tells of health, said of the world of a configuration: names count.
pub fn facts_of(status: &Status, world: &World) -> Facts {
    let mut facts = Facts::unknown(world);
    for datacenter in &status.datacenters {
        let id = world.datacenter_id(&datacenter.name);
        if let Some(mode) = id.and_then(|id| facts.datacenters.get_mut(usize::from(id))) {
            *mode = datacenter.mode;
        }
        for intake in &datacenter.intakes {
            let policy = world.policies.iter().position(|policy| policy.name == intake.policy);
            let slot = policy
                .zip(id)
                .and_then(|(policy, id)| facts.intakes.get_mut(policy)?.get_mut(usize::from(id)));
            if let Some(slot) = slot {
                *slot = Intake { returned: intake.returned, shed: intake.shed };
            }
        }
        for edge in &datacenter.edges {
            let Some(id) = world.edge_id(&edge.name).map(usize::from) else { continue };
            if let Some(mode) = facts.edges.get_mut(id) {
                *mode = edge.mode;
            }
            if let Some(report) = facts.reports.get_mut(id) {
                *report = edge.report.clone().map(Arc::new);
            }
            for seen in &edge.checks {
                let check = world.checks.iter().position(|check| *check == seen.check);
                let slot = check.and_then(|check| facts.observed.get_mut(check)?.get_mut(id));
                if let Some(slot) = slot {
                    let state = match seen.state.as_str() {
                        // What fell in an event that is not believed is answered as if it were up.
                        _ if seen.stands => State::Up,
                        "up" => State::Up,
                        "down" => State::Down,
                        _ => State::Unknown,
                    };
                    let failure = seen.failure.as_deref().map(Into::into);
                    *slot = Some(Observed {
                        state,
                        soonest_change: Duration::ZERO,
                        failure,
                        draining: seen.draining,
                    });
                }
            }
        }
    }
    facts
}

/// Rehearsals that the admin API was asked for: one at a time, on a thread of their own.
#[derive(Default)]
pub(super) struct Rehearsals(Arc<Mutex<()>>);

impl Rehearsals {
    /// Answers `GET /v1/whatif`.
    pub(super) async fn answer(&self, call: &Call, node: &Node) -> Answer {
        let (change, total) = match asked(call) {
            Ok(asked) => asked,
            Err(why) => return Answer::problem(StatusCode::BAD_REQUEST, &why),
        };
        let Ok(turn) = Arc::clone(&self.0).try_lock_owned() else {
            let why = "another rehearsal is being made: ask again in a second";
            return Answer::problem(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        let before = node.served.load_full().snapshot.clone();
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let after = change.apply(&before, Zones::default)?;
            let mut rehearsal = Rehearsal::new(&before, &after);
            rehearsal.add_population(Fineness::NODE);
            let traffic = total.map_or_else(
                || Traffic::reported(&before),
                |Rate(bits)| Traffic::Total(bits as f64),
            );
            let mut report = rehearsal.report(change.describe(), None, &traffic);
            report.notes.extend(change.idle_parts(&before.tables.world));
            Ok::<_, String>(report)
        });
        match made.await {
            Ok(Ok(report)) => Answer::json(&report),
            Ok(Err(why)) => Answer::problem(StatusCode::BAD_REQUEST, &why),
            Err(error) => Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}

/// The change and the traffic in all that a call names.
fn asked(call: &Call) -> Result<(Change, Option<Rate>), String> {
    let mut change = Change::default();
    let mut total = None;
    for (name, value) in &call.query {
        match name.as_str() {
            "down" => change.down.push(value.clone()),
            "drain" => change.drain.push(value.clone()),
            "up" => change.up.push(value.clone()),
            "weight" => change.weights.push(parse_weight(value)?),
            "total" => total = Some(Rate::try_from(value.clone())?),
            other => {
                return Err(format!(
                    "there is no parameter `{other}`: write down, drain, up, weight or total"
                ));
            }
        }
    }
    Ok((change, total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn logs_are_read_line_by_line_whatever_is_in_them() {
        let snapshot = testing::snapshot(testing::world(&[], |_| {}), &[]);
        let mut rehearsal = Rehearsal::new(&snapshot, &snapshot);
        let good = br#"{"client":"1.208.0.1:53","name":"www.cdn.test.","type":"A"}"#;
        let long = vec![b'x'; (MAX_LINE as usize) * 3 + 7];
        let exact = vec![b' '; MAX_LINE as usize - 1];
        let parts: [&[u8]; 8] = [good, b"", b"nonsense", &long, good, &exact, b"\xff\x00", good];
        let text = parts.join(&b'\n');
        // A buffer that is smaller than a line, and no line end at the end.
        let mut told = 0;
        let reader = io::BufReader::with_capacity(16, text.as_slice());
        let replayed = replay(reader, &mut rehearsal, |lines| told = lines).unwrap();
        assert_eq!((replayed.lines, replayed.unreadable, told), (6, 3, 0));
        assert_eq!(replayed.first_problem.unwrap().0, 3);
        let report = rehearsal.report(Vec::new(), Some(3), &Traffic::Unknown);
        assert_eq!((report.splits[0].tried, report.splits[0].moved), (3, 0.0));
        let empty = replay(io::empty(), &mut rehearsal, |_| {}).unwrap();
        assert_eq!(empty, Replayed::default());
    }
}
