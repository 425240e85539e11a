//! Simulated days.

use super::*;

use proptest::prelude::*;

const RAMP: RampSettings = RampSettings {
    length: Duration::from_secs(600),
    least_step: Duration::from_secs(5),
    is_told_warmth: false,
    grace: Duration::from_secs(60),
};
const SHED: ShedSettings = ShedSettings {
    above: 0.85,
    resume: 0.7,
    patience: Duration::from_secs(6),
    period: Duration::from_secs(20),
};
const LATER: Duration = Duration::from_secs(1000);

fn at(secs: u64) -> UnixMillis {
    UnixMillis::from_secs(secs)
}

/// The shares at these seconds after a return at 1000 s, each with the warmth at that time.
fn returning(warmth: impl Fn(u64) -> Option<f64>, seconds: impl Iterator<Item = u64>) -> Vec<f64> {
    let mut ramp = Ramp::In;
    ramp.advance(&RAMP, Status::Out, false, None, LATER, at(990));
    ramp.advance(&RAMP, Status::Up, false, warmth(0), LATER, at(1000));
    let shares = seconds.map(|secs| {
        ramp.advance(&RAMP, Status::Up, false, warmth(secs), LATER, at(1000 + secs));
        ramp.returned(&RAMP)
    });
    shares.collect()
}

#[test]
fn a_warm_datacenter_is_back_after_the_ramp() {
    let shares = returning(|_| None, [0, 1, 300, 594, 600].into_iter());
    assert_eq!((shares[0], shares[1], shares[4]), (0.05, 0.05, 1.0));
    assert!((0.52..0.53).contains(&shares[2]), "{shares:?}");
    assert!((0.98..1.0).contains(&shares[3]), "{shares:?}");
}

#[test]
fn a_cold_one_is_held_back_for_twice_as_long_and_no_longer() {
    let shares = returning(|_| Some(0.0), [300, 600, 900, 1194, 1200].into_iter());
    assert_eq!((shares[0], shares[1]), (0.05, 0.05));
    assert!((0.52..0.53).contains(&shares[2]), "{shares:?}");
    assert!(shares[3] < 1.0 && shares[4] == 1.0, "{shares:?}");
    let half_warm = returning(|_| Some(0.5), [300, 600, 900, 1200].into_iter());
    assert!(half_warm[..3].iter().all(|share| (0.5..0.55).contains(share)), "{half_warm:?}");
}

#[test]
fn who_says_nothing_for_a_moment_is_not_taken_for_warm() {
    let told = RampSettings { is_told_warmth: true, ..RAMP };
    let mut ramp = Ramp::In;
    let mut see = |status, warmth, secs| {
        ramp.advance(&told, status, false, warmth, LATER, at(secs));
        ramp.returned(&told)
    };
    see(Status::Out, None, 990);
    see(Status::Up, Some(0.1), 1000);
    let before = see(Status::Up, Some(0.1), 1300);
    assert!((0.14..0.15).contains(&before), "{before}");
    assert_eq!(see(Status::Up, None, 1301), before, "a report is missing");
    assert_eq!(see(Status::Up, Some(0.1), 1302), before);
    // Nobody is held back for ever.
    assert_eq!(see(Status::Up, None, 1000 + 1200), 1.0);
}

#[test]
fn who_falls_again_starts_again() {
    let mut ramp = Ramp::In;
    let mut see = |status, secs| {
        ramp.advance(&RAMP, status, false, None, LATER, at(secs));
        ramp.returned(&RAMP)
    };
    see(Status::Out, 0);
    see(Status::Up, 10);
    assert!(see(Status::Up, 500) > 0.8);
    assert_eq!(see(Status::Out, 501), FIRST, "so that its first answer is not for all");
    assert_eq!(see(Status::Up, 510), FIRST);
}

#[test]
fn the_start_of_the_program_is_no_return() {
    for (status, after, expected) in [
        (Status::Unknown, 0, Ramp::In),
        (Status::Out, 60, Ramp::In),
        (Status::Out, 61, Ramp::Returning { since: at(70), share: FIRST }),
    ] {
        let mut ramp = Ramp::default();
        ramp.advance(&RAMP, status, false, None, Duration::from_secs(after), at(60));
        ramp.advance(&RAMP, Status::Up, false, None, Duration::from_secs(after + 5), at(70));
        assert_eq!(ramp, expected, "{status:?} {after}");
    }
}

#[test]
fn nobody_is_held_back_who_is_alone_or_has_no_ramp() {
    let none = RampSettings { length: Duration::ZERO, ..RAMP };
    for (settings, is_alone) in [(RAMP, true), (none, false)] {
        let mut ramp = Ramp::Out;
        ramp.advance(&settings, Status::Up, is_alone, Some(0.0), LATER, at(0));
        assert_eq!(ramp, Ramp::In);
    }
    assert_eq!(Ramp::Out.returned(&none), 1.0);
}

#[test]
fn a_step_comes_when_it_was_told_and_never_before() {
    for (length, least_step) in [(600, 5), (600, 0), (4, 60), (10, 3)] {
        let settings = RampSettings {
            length: Duration::from_secs(length),
            least_step: Duration::from_secs(least_step),
            ..RAMP
        };
        let mut ramp = Ramp::Out;
        let mut now = at(0);
        let mut steps = 0;
        while ramp != Ramp::In {
            ramp.advance(&settings, Status::Up, false, None, LATER, now);
            let Some(next) = ramp.next_step(&settings, now) else { break };
            let before = ramp;
            let just_before = now + next - Duration::from_millis(1);
            ramp.advance(&settings, Status::Up, false, None, LATER, just_before);
            assert_eq!(ramp, before, "{settings:?}");
            assert!(next >= Duration::from_secs(least_step).min(settings.length / FEWEST_STEPS));
            now = now + next;
            steps += 1;
        }
        assert!((FEWEST_STEPS..=STEPS + 1).contains(&steps), "{steps} of {settings:?}");
    }
}

proptest! {
    /// Any day of falls and warmth: the share never shrinks while it is up, and is whole after twice the length.
    #[test]
    fn a_ramp_grows_and_ends(day in prop::collection::vec((0..40_u8, prop::option::of(0.0..1.0_f64)), 1..2000)) {
        let (mut ramp, mut before, mut up_since) = (Ramp::In, 1.0, None);
        for (n, (dice, warmth)) in day.into_iter().enumerate() {
            let now = at(n as u64 * 43);
            let up = dice != 0;
            ramp.advance(&RAMP, if up { Status::Up } else { Status::Out }, false, warmth, LATER, now);
            let share = ramp.returned(&RAMP);
            prop_assert!((FIRST..=1.0).contains(&share));
            if up {
                let since = *up_since.get_or_insert(now);
                prop_assert!(share >= before);
                prop_assert!(share == 1.0 || now.since(since) < RAMP.length * 2);
                before = share;
            } else {
                (up_since, before) = (None, 0.0);
            }
        }
    }
}

/// A datacenter whose load follows the share that answers give it as resolvers' caches end: within `ttl` seconds. One
/// tick is a second, and a report comes every other.
struct Plant {
    shed: Shed,
    /// Shares of the last `ttl` seconds; a client's answer is of any of them.
    past: std::collections::VecDeque<f64>,
    noise: u64,
}

impl Plant {
    fn new(ttl: usize, seed: u64) -> Self {
        Self { shed: Shed::default(), past: vec![0.0; ttl].into(), noise: seed | 1 }
    }

    /// A number from -1 to 1 (xorshift64).
    fn noise(&mut self) -> f64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (self.noise % 2001) as f64 / 1000.0 - 1.0
    }

    /// One second at this demand. Returns the true load.
    fn second(&mut self, demand: f64, noise: f64, secs: u64) -> f64 {
        self.past.pop_front();
        self.past.push_back(self.shed.share());
        let shed = self.past.iter().sum::<f64>() / self.past.len() as f64;
        let load = demand * (1.0 - shed);
        let seen = (load + self.noise() * noise).max(0.0);
        self.shed.advance(&SHED, secs.is_multiple_of(2).then_some(seen), true, at(secs));
        load
    }
}

/// Constant demand: the load comes into the band and the share comes to rest.
#[test]
fn overload_settles_without_oscillation() {
    for demand in [0.9, 1.0, 1.3, 2.0, 4.0] {
        let mut plant = Plant::new(10, 1);
        let mut shares = Vec::new();
        let mut load = demand;
        for secs in 0..3600 {
            load = plant.second(demand, 0.0, secs);
            shares.push(plant.shed.share());
        }
        assert!(load <= SHED.above, "{demand}: {load}");
        assert!(load >= SHED.resume, "{demand}: {load}");
        let turns = shares.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert_eq!(turns, 0, "{demand}: it went back");
        assert_eq!(shares[1800], shares[3599], "{demand}: at rest");
    }
}

#[test]
fn one_loud_moment_sheds_nobody() {
    let mut plant = Plant::new(10, 1);
    for secs in 0..600 {
        let spike = if secs % 100 == 0 { 3.0 } else { 0.5 };
        plant.second(spike, 0.0, secs);
        assert_eq!(plant.shed.share(), 0.0);
    }
}

#[test]
fn clients_come_back_when_the_load_goes() {
    let mut plant = Plant::new(10, 1);
    for secs in 0..1200 {
        plant.second(2.0, 0.0, secs);
    }
    assert!(plant.shed.share() > 0.5);
    for secs in 1200..3600 {
        let load = plant.second(0.5, 0.0, secs);
        assert!(load < SHED.above);
    }
    assert_eq!(plant.shed.share(), 0.0);
}

#[test]
fn without_room_elsewhere_nothing_is_shed_and_without_a_word_it_ends() {
    let mut shed = Shed::default();
    for secs in 0..600 {
        shed.advance(&SHED, Some(1.5), false, at(secs));
    }
    assert_eq!(shed.share(), 0.0);
    for secs in 600..1200 {
        shed.advance(&SHED, Some(1.5), true, at(secs));
    }
    let share = shed.share();
    assert!(share > 0.1);
    shed.advance(&SHED, None, true, at(1250));
    assert_eq!(shed.share(), share, "a report that is late changes nothing");
    for secs in 1250..3000 {
        shed.advance(&SHED, None, true, at(secs));
    }
    assert_eq!(shed.share(), 0.0);
    let off = ShedSettings { above: 0.0, resume: 0.0, ..SHED };
    shed.advance(&off, Some(9.0), true, at(3001));
    assert_eq!(shed, Shed::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A day with its tide, with noise: the slope is bounded, overload never lasts, and the share turns around about as
    /// often as the demand does.
    #[test]
    fn a_day_is_ridden_out(seed: u64, peak in 0.9..2.5_f64, noise in 0.0..0.04_f64, ttl in 1_usize..20) {
        let mut plant = Plant::new(ttl, seed);
        let day = 86_400;
        let (mut over, mut longest, mut turns, mut rising) = (0, 0, 0, true);
        let (mut before, mut stepped) = (0.0, None::<u64>);
        for secs in 0..day {
            let tide = (secs as f64 / day as f64 * std::f64::consts::TAU - 1.5).sin();
            let demand = peak * (0.55 + 0.45 * tide);
            let load = plant.second(demand, noise, secs);
            over = if load > SHED.above { over + 1 } else { 0 };
            longest = longest.max(over);
            let share = plant.shed.share();
            if share != before {
                prop_assert!(share - before <= MOST_STEP + 1e-9 && before - share <= MOST_STEP_BACK + LEAST_STEP);
                prop_assert!(stepped.is_none_or(|at| secs - at >= SHED.period.as_secs()));
                turns += u32::from((share > before) != rising);
                rising = share > before;
                (before, stepped) = (share, Some(secs));
            }
        }
        prop_assert!(turns <= 2, "{turns} turns");
        prop_assert!(longest < 900, "overloaded for {longest} s");
        prop_assert_eq!(plant.shed.share(), 0.0, "the night");
    }
}
