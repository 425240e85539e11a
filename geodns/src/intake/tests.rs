//! Three datacenters of two edges each, seen through views.

use std::sync::Arc;

use shared::report::Report;

use super::*;
use crate::testing::{self, FRA, IAD, ICN};

const LATER: Duration = Duration::from_secs(1000);

fn settings(world: &World, ramp: u64, above: f64) -> Settings {
    let ramp = RampSettings {
        length: Duration::from_secs(ramp),
        least_step: Duration::from_secs(5),
        is_told_warmth: false,
        grace: Duration::from_secs(60),
    };
    let shed = ShedSettings {
        above,
        resume: above / 2.0,
        patience: Duration::from_secs(6),
        period: Duration::from_secs(10),
    };
    Settings { policies: vec![(ramp, shed)], capacities: vec![Some(1e9); world.datacenters.len()] }
}

struct Play {
    world: World,
    settings: Settings,
    intakes: Intakes,
    /// In seconds: what fell from then on is not believed.
    doubted: Option<u64>,
    now: u64,
}

impl Play {
    fn new(ramp: u64, above: f64) -> Self {
        let world = testing::world(&[], |_| {});
        let settings = settings(&world, ramp, above);
        Self { world, settings, intakes: Intakes::default(), doubted: None, now: 1000 }
    }

    /// Seconds in which `change` of the facts is so; what happened.
    fn play(&mut self, secs: u64, change: impl Fn(&mut Facts)) -> Vec<(String, What)> {
        let mut facts = testing::down(&self.world, &[]);
        change(&mut facts);
        let view = View::new(&self.world, facts, None);
        let mut all = Vec::new();
        for _ in 0..secs {
            self.now += 1;
            let now = UnixMillis::from_secs(self.now);
            let doubted = self.doubted.map(UnixMillis::from_secs);
            let (world, settings) = (&self.world, &self.settings);
            let events = self.intakes.advance(world, settings, &view, doubted, LATER, now);
            all.extend(events.into_iter().map(|event| (event.datacenter, event.what)));
        }
        all
    }

    fn of(&self, datacenter: DatacenterId) -> Intake {
        self.intakes.all(&self.world, &self.settings)[0][usize::from(datacenter)]
    }

    fn soonest(&self) -> Duration {
        self.intakes.soonest(&self.world, &self.settings, UnixMillis::from_secs(self.now))[0]
    }
}

fn fallen(datacenter: DatacenterId) -> impl Fn(&mut Facts) {
    move |facts| facts.datacenters[usize::from(datacenter)] = Mode::Down
}

/// The two edges of a datacenter report this.
fn reports(facts: &mut Facts, datacenter: DatacenterId, load: f64, egress_bps: f64, warmth: f64) {
    for edge in [datacenter * 2, datacenter * 2 + 1] {
        let report = Report { load, egress_bps, warmth, ..Report::default() };
        facts.reports[usize::from(edge)] = Some(Arc::new(report));
    }
}

#[test]
fn a_datacenter_that_returns_ramps_while_others_are_in() {
    let mut play = Play::new(100, 0.0);
    assert_eq!(play.play(5, |_| {}), []);
    assert_eq!(play.play(5, fallen(ICN)), []);
    assert_eq!((play.of(ICN).returned, play.of(FRA).returned), (0.05, 1.0));
    assert_eq!(play.play(1, |_| {}), [("icn".to_owned(), What::RampBegins)]);
    assert!(play.soonest() <= Duration::from_secs(5));
    play.play(50, |_| {});
    assert!((0.5..0.6).contains(&play.of(ICN).returned), "{:?}", play.of(ICN));
    assert_eq!(play.play(60, |_| {}), [("icn".to_owned(), What::RampEnds)]);
    assert_eq!((play.of(ICN), play.soonest()), (Intake::default(), Duration::MAX));
}

/// Its edges fall a moment before the others', and with them it turns out that it was this machine.
#[test]
fn a_fall_that_is_not_believed_begins_no_ramp() {
    for (doubted, back) in [(Some(1002), 1.0), (Some(1004), 0.05), (None, 0.05)] {
        let mut play = Play::new(100, 0.0);
        play.play(2, |_| {});
        play.play(1, fallen(ICN));
        play.doubted = doubted;
        play.play(1, |_| {});
        assert_eq!(play.of(ICN).returned, back, "{doubted:?}");
        // A later fall is one.
        play.play(200, |_| {});
        play.doubted = None;
        play.play(1, fallen(ICN));
        play.play(1, |_| {});
        assert_eq!(play.of(ICN).returned, 0.05, "{doubted:?}");
    }
}

#[test]
fn cold_caches_hold_a_ramp_back() {
    let mut play = Play::new(100, 0.0);
    play.play(5, |_| {});
    play.play(5, fallen(ICN));
    play.play(95, |facts| reports(facts, ICN, 0.1, 0.0, 0.2));
    assert!((0.2..0.3).contains(&play.of(ICN).returned), "{:?}", play.of(ICN));
    play.play(106, |facts| reports(facts, ICN, 0.1, 0.0, 0.0));
    assert_eq!(play.of(ICN).returned, 1.0);
}

#[test]
fn the_only_one_takes_all_at_once() {
    let mut play = Play::new(100, 0.5);
    play.play(5, |_| {});
    play.play(5, |facts| [ICN, FRA, IAD].iter().for_each(|dc| fallen(*dc)(facts)));
    let only_icn = |facts: &mut Facts| {
        [FRA, IAD].iter().for_each(|dc| fallen(*dc)(facts));
        reports(facts, ICN, 2.0, 0.0, 0.0);
    };
    play.play(60, only_icn);
    assert_eq!(play.of(ICN), Intake::default(), "neither ramp nor shedding");
    // The next one has somebody to wait for.
    play.play(10, |facts| fallen(IAD)(facts));
    assert!(play.of(FRA).returned < 0.2, "{:?}", play.of(FRA));
    assert_eq!(play.of(ICN).returned, 1.0);
}

#[test]
fn load_is_the_mean_of_the_edges_or_what_they_send_of_the_capacity() {
    for (load, egress, expected) in
        [(0.2, 0.0, 0.2), (0.2, 4e8, 0.8), (0.9, 4e8, 0.9), (0.0, 5e8, 1.0)]
    {
        let mut play = Play::new(0, 0.99);
        play.play(1, |facts| reports(facts, ICN, load, egress, 1.0));
        assert_eq!(play.intakes.load("web", "icn"), Some(expected), "{load} {egress}");
    }
    let mut play = Play::new(0, 0.99);
    play.play(1, |facts| {
        reports(facts, ICN, 0.2, 0.0, 1.0);
        facts.reports[1] = Some(Arc::new(Report { load: 0.8, ..Report::default() }));
    });
    assert_eq!(play.intakes.load("web", "icn"), Some(0.5));
    play.play(100, |facts| {
        reports(facts, ICN, 0.2, 0.0, 1.0);
        facts.reports[1] = Some(Arc::new(Report { load: 0.8, ..Report::default() }));
        facts.edges[1] = Mode::Drain;
    });
    let load = play.intakes.load("web", "icn").unwrap();
    assert!((load - 0.2).abs() < 1e-6, "who is in no answer does not count: {load}");
}

#[test]
fn too_much_load_is_shed_when_others_have_room() {
    let hot = |facts: &mut Facts| reports(facts, ICN, 0.9, 0.0, 1.0);
    let mut play = Play::new(0, 0.8);
    let events = play.play(30, hot);
    assert!(matches!(&events[..], [(dc, What::ShedBegins(_))] if dc == "icn"), "{events:?}");
    assert!(play.of(ICN).shed > 0.1);
    assert!(play.soonest() <= Duration::from_secs(10));
    let calm = |facts: &mut Facts| reports(facts, ICN, 0.1, 0.0, 1.0);
    assert_eq!(play.play(300, calm), [("icn".to_owned(), What::ShedEnds)]);
    assert_eq!((play.of(ICN), play.soonest()), (Intake::default(), Duration::MAX));

    let mut full = Play::new(0, 0.8);
    full.play(100, |facts| {
        [ICN, FRA, IAD].iter().for_each(|dc| reports(facts, *dc, 0.9, 0.0, 1.0))
    });
    for datacenter in [ICN, FRA, IAD] {
        assert_eq!(full.of(datacenter).shed, 0.0, "nobody has room");
    }
}

#[test]
fn a_reload_and_a_restart_keep_ramps() {
    let mut play = Play::new(100, 0.0);
    play.play(5, |_| {});
    play.play(5, fallen(ICN));
    play.play(50, |_| {});
    let before = play.of(ICN);
    let mut again = Play::new(100, 0.0);
    again.intakes.restore(play.intakes.returns());
    again.now = play.now;
    assert_eq!(again.of(ICN), before);
    again.play(60, |_| {});
    assert_eq!(again.of(ICN).returned, 1.0);
    assert_eq!(again.intakes.returns(), []);
}
