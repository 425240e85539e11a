//! Predictions against the truth: nodes of those sizes, asked for all of it.

use super::*;

/// Keys as hashes are: spread over all numbers.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Requests: few objects are asked for often (rank r in proportion to 1/r), two in ten requests are for what nobody asks
/// for again, sizes go from 1 to 60 KiB and, one in a hundred, to a megabyte.
struct World(u64);

impl World {
    fn next(&mut self, ranks: u64) -> (u64, u64) {
        self.0 += 1;
        let random = mix(self.0);
        let rank = match random % 10 {
            0 | 1 => ranks + self.0,
            _ => {
                let share = (random >> 11) as f64 / (1u64 << 53) as f64;
                ((ranks as f64).powf(share)) as u64
            }
        };
        let key = mix(rank);
        let size = match key % 100 {
            0 => 1 << 20,
            other => 1024 * (1 + other % 60),
        };
        (key, size)
    }
}

fn truth(setup: &Setup, ranks: u64, requests: u64) -> Tally {
    let (mut world, mut sim) = (World(0), Sim::new(setup));
    let mut tally = Tally::default();
    for n in 0..requests {
        let (key, size) = world.next(ranks);
        tally.count(sim.request(key, size, Duration::from_millis(n)).is_hit(), size, 1.0);
    }
    tally
}

fn predicted(shape: Shape, ranks: u64, requests: u64) -> (Predictor, Tally) {
    let here = Candidate::new(&shape, Tier::Memory, 1.0, shape.policy.unwrap(), 1.0).setup;
    let (mut world, mut node) = (World(0), Sim::new(&here));
    let mut predictor = Predictor::new(shape);
    let mut all = Tally::default();
    for n in 0..requests {
        let (key, size) = world.next(ranks);
        let at = Duration::from_millis(n);
        let hit = node.request(key, size, at).is_hit();
        all.count(hit, size, 1.0);
        if key <= predictor.bound() {
            let fate = if hit { Fate::Hit } else { Fate::Absent };
            predictor.sampled(&Seen { key, size, sent: size, fate, of: 1 }, at);
        }
        if n % 1000 == 0 {
            predictor.tick(at, all, 0);
        }
    }
    predictor.tick(Duration::from_millis(requests), all, 0);
    (predictor, all)
}

#[test]
fn predictions_are_within_a_point_of_the_truth() {
    let (ranks, requests) = (50_000, 240_000);
    let shape = Shape { most: 12 << 10, ..Shape::new(128 << 20, None, Some(Kind::SizeAware)) };
    let (predictor, all) = predicted(shape, ranks, requests);
    let report = predictor.report();
    assert!(report.sampled < 1.0, "it is a sample: {}", report.sampled);
    assert_eq!(report.requests, requests as f64);
    let looked_at = |prediction: &&Prediction| {
        prediction.policy == "size-aware"
            || (prediction.policy == "s3-fifo" && prediction.scale == 1.0)
    };
    for prediction in report.predictions.iter().filter(looked_at) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == prediction.policy).unwrap();
        let setup = Candidate::new(&shape, Tier::Memory, prediction.scale, kind, 1.0).setup;
        assert_eq!(setup.memory, prediction.size);
        let truth = truth(&setup, ranks, requests).ratios().unwrap();
        let (objects, bytes) =
            (prediction.ratios.objects - truth.objects, prediction.ratios.bytes - truth.bytes);
        assert!(objects.abs() < 0.01 && bytes.abs() < 0.01, "{prediction:?}: {truth:?}");
    }
    let error = report.error.unwrap();
    assert!(error.objects.abs() < 0.01 && error.bytes.abs() < 0.01, "{error:?}");
    assert_eq!(report.live, all.ratios().unwrap());
    let (quarter, four) = (report.find(Tier::Memory, 0.25), report.find(Tier::Memory, 4.0));
    assert!(quarter.unwrap().ratios.objects + 0.05 < four.unwrap().ratios.objects);
    let words = report.words();
    for word in [
        "Twice the memory (256 MiB): +",
        "for each GiB",
        "With policy lru instead of size-aware: -",
        "(now)",
    ] {
        assert!(words.contains(word), "{word} in\n{words}");
    }
    assert!(!words.contains("predicted"), "{words}");
}

#[test]
fn a_disk_is_predicted_too() {
    let (ranks, requests) = (30_000, 120_000);
    let disk = DiskSetup { size: 512 << 20, daily_writes: 1 << 40 };
    let shape = Shape { most: 12 << 10, ..Shape::new(64 << 20, Some(disk), Some(Kind::SizeAware)) };
    let (predictor, _) = predicted(shape, ranks, requests);
    let report = predictor.report();
    assert!(report.sampled < 1.0, "it is a sample: {}", report.sampled);
    let tiers = |tier| report.predictions.iter().filter(|p| p.tier == tier).count();
    assert_eq!((tiers(Tier::Memory), tiers(Tier::Disk)), (7, 4));
    let error = report.error.unwrap();
    // A quarter of a small disk has few segments, and those of the smallest size: two points, not one.
    assert!(error.objects.abs() < 0.02 && error.bytes.abs() < 0.02, "{error:?}");
    for scale in [0.25, 2.0] {
        let prediction = report.find(Tier::Disk, scale).unwrap();
        let setup = Candidate::new(&shape, Tier::Disk, scale, Kind::SizeAware, 1.0).setup;
        let truth = truth(&setup, ranks, requests).ratios().unwrap();
        let off = prediction.ratios.objects - truth.objects;
        assert!(off.abs() < 0.02, "{prediction:?}: {truth:?}");
    }
    assert!(
        report.advice.iter().any(|line| line.starts_with("Twice the disk (1 GiB)")),
        "{report:?}"
    );
}

#[test]
fn a_rush_makes_the_sample_smaller_and_memory_is_bounded() {
    let mut predictor = Predictor::new(Shape::new(1 << 40, None, None));
    let mut world = World(0);
    for n in 0..60_000u64 {
        let (key, size) = world.next(1_000_000);
        predictor.sampled(
            &Seen { key, size, sent: size, fate: Fate::Absent, of: 1 },
            Duration::from_micros(n),
        );
    }
    assert!(predictor.bound() < u64::MAX);
    for candidate in &predictor.candidates {
        assert!(candidate.sim.entries().0 <= predictor.shape.most);
    }
    assert!(predictor.known.last.len() <= MOST_KNOWN);
    let report = predictor.report();
    assert_eq!((report.error, report.policy), (None, None), "its own policy cannot be simulated");
}

/// Few keys cannot be a smaller sample: of their requests some are left out, and the ratios are what they were.
#[test]
fn many_requests_for_few_keys_take_little_work() {
    let shape = Shape::new(2 << 20, None, Some(Kind::Lru));
    let here = Candidate::new(&shape, Tier::Memory, 1.0, Kind::Lru, 1.0).setup;
    let (mut predictor, mut node) = (Predictor::new(shape), Sim::new(&here));
    let (mut all, mut simulated, mut turn) = (Tally::default(), 0, 0);
    for n in 0..400_000_u64 {
        let at = Duration::from_micros(n * 250);
        let share = (mix(n) >> 11) as f64 / (1u64 << 53) as f64;
        let (key, size) = (mix(800_f64.powf(share) as u64), 10_000);
        let hit = node.request(key, size, at).is_hit();
        all.count(hit, size, 1.0);
        let thinned = predictor.thinned();
        if is_taken(turn, thinned) {
            simulated += 1;
            let fate = if hit { Fate::Hit } else { Fate::Absent };
            predictor.sampled(&Seen { key, size, sent: size, fate, of: 1 << thinned }, at);
        }
        turn += 1;
        if n % 4000 == 0 {
            predictor.tick(at, all, 0);
        }
    }
    predictor.tick(Duration::from_secs(100), all, 0);
    assert!(simulated < 150_000, "{simulated} of 400,000");
    assert_eq!((predictor.thinned(), predictor.bound()), (2, u64::MAX));
    let report = predictor.report();
    let error = report.error.unwrap();
    assert!(error.objects.abs() < 0.01 && error.bytes.abs() < 0.01, "{error:?}");
    assert!((0.2..0.9).contains(&report.live.objects), "{:?}", report.live);
    // At rest it becomes all of them again.
    for second in 100..140 {
        let at = Duration::from_secs(second);
        predictor.sampled(&Seen { key: 1, size: 1, sent: 1, fate: Fate::Hit, of: 4 }, at);
        predictor.tick(at, all, 0);
    }
    assert_eq!(predictor.thinned(), 0);
}

#[test]
fn a_large_disk_begins_with_a_small_sample() {
    let disk = DiskSetup { size: 1 << 40, daily_writes: 3 << 40 };
    let predictor = Predictor::new(Shape::new(1 << 34, Some(disk), Some(Kind::SizeAware)));
    let largest = 4.0 * (1u64 << 40) as f64 * predictor.share();
    assert!((0.5..=1.0).contains(&(largest / 2_147_483_648.0)), "{largest}");
    let small = DiskSetup { size: 1 << 29, ..disk };
    assert_eq!(Predictor::new(Shape::new(1 << 30, Some(small), None)).bound(), u64::MAX >> 1);
    assert_eq!(Predictor::new(Shape::new(1 << 40, None, None)).bound(), u64::MAX);
}

#[test]
fn what_no_size_could_have_answered_counts_for_all() {
    let mut predictor = Predictor::new(Shape::new(1 << 30, None, Some(Kind::Lru)));
    let mut all = Tally::default();
    let mut note = |fate: Fate, key: u64| {
        let seen = Seen { key, size: 1000, sent: 1000, fate, of: 1 };
        all.count(fate == Fate::Hit, 1000, 1.0);
        predictor.sampled(&seen, Duration::ZERO);
        all
    };
    note(Fate::Absent, 1);
    note(Fate::Renewed, 1);
    note(Fate::Hit, 1);
    note(Fate::Unstored, 2);
    let all = note(Fate::Unstored, 2);
    predictor.tick(Duration::from_secs(1), all, 0);
    let report = predictor.report();
    assert!(
        report.predictions.iter().all(|p| p.ratios == Ratios { objects: 0.2, bytes: 0.2 }),
        "{report:?}"
    );
    assert_eq!(report.advice.len(), 1, "five requests prove nothing: {:?}", report.advice);
}

#[test]
fn ratios_are_those_of_the_last_hour() {
    let mut predictor = Predictor::new(Shape::new(1 << 30, None, Some(Kind::Lru)));
    let mut all = Tally::default();
    for minute in 0..300u64 {
        let at = Duration::from_secs(60 * minute);
        // All hits at first; then what nobody has asked for before.
        let (key, fate) = if minute < 200 { (1, Fate::Hit) } else { (minute, Fate::Absent) };
        all.count(fate == Fate::Hit, 1000, 1.0);
        predictor.sampled(&Seen { key, size: 1000, sent: 1000, fate, of: 1 }, at);
        predictor.tick(at, all, 0);
    }
    let report = predictor.report();
    assert!((55.0..66.0).contains(&report.requests), "{}", report.requests);
    assert_eq!(report.live.objects, 0.0);
    assert_eq!(report.predictions[0].ratios.objects, 0.0);
    assert_eq!(report.working_set_hour, 61_000.0, "one a minute, and that of an hour ago");
    assert_eq!(report.working_set_day, 101_000.0);
}
