//! Random histories: what clients ask, when, and what the origin says to it; written down so that a failure can be read,
//! and cut down to the steps that matter.

use std::fmt;

use super::fields::{Fields, Form, date};
use harness::dice::Dice;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) fields: Fields,
    pub(super) content: bool,
}

/// What the origin does with a request, should it get one. Times in values are written `{seconds from then}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// 0: it cannot be reached.
    pub(super) status: u16,
    pub(super) fields: Fields,
    /// When asked conditionally, it says 304 and names so many-th of the tags that it was sent; or another one.
    pub(super) not_modified: Option<usize>,
}

/// One request and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Milliseconds since the step before.
    pub(super) wait: u64,
    pub(super) request: Request,
    /// Milliseconds that the origin takes.
    pub(super) delay: u64,
    pub(super) reply: Reply,
}

/// What the operator decided.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) by_the_letter: bool,
    pub(super) default: u64,
    pub(super) least: u64,
    pub(super) most: u64,
    pub(super) while_revalidate: u64,
    pub(super) if_error: u64,
    pub(super) beside_s_maxage: bool,
    pub(super) heuristic: bool,
}

/// A history under rules.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) rules: Rules,
    pub(super) steps: Vec<Step>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.rules)?;
        for step in &self.steps {
            let Step { wait, request, delay, reply } = step;
            let content = if request.content { " with content" } else { "" };
            writeln!(f, "+{wait} ms: {}{content} {:?}", request.method, request.fields)?;
            let answer =
                if reply.status == 0 { "no answer".into() } else { reply.status.to_string() };
            let or = reply.not_modified.map_or(String::new(), |n| format!(", or 304 by tag {n}"));
            writeln!(f, "    after {delay} ms: {answer}{or} {:?}", reply.fields)?;
        }
        Ok(())
    }
}

/// Values with their times put in: `{-5}` is five seconds before `now`, `{-5 850}` and `{-5 asc}` the other forms.
pub(super) fn at(fields: &Fields, now: u64) -> Fields {
    let dated = |value: &String| {
        let inside = value.strip_prefix('{').and_then(|value| value.strip_suffix('}'));
        let Some(inside) = inside else { return value.clone() };
        let (offset, form) = inside.split_once(' ').unwrap_or((inside, ""));
        let form = match form {
            "850" => Form::Rfc850,
            "asc" => Form::Asctime,
            _ => Form::Imf,
        };
        let seconds = (now / 1000).checked_add_signed(offset.parse().unwrap()).unwrap();
        date(seconds, form)
    };
    fields.iter().map(|(name, value)| (name.clone(), dated(value))).collect()
}

fn one<'a>(dice: &mut Dice, of: &[&'a str]) -> &'a str {
    of[dice.below(of.len())]
}

fn add(fields: &mut Fields, name: &str, value: &str) {
    fields.push((name.to_owned(), value.to_owned()));
}

/// So often in a hundred.
fn odds(dice: &mut Dice, percent: usize) -> bool {
    dice.below(100) < percent
}

fn request(dice: &mut Dice) -> Request {
    let method = match dice.below(20) {
        0 => "HEAD",
        1 => one(dice, &["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"]),
        2 => one(dice, &["OPTIONS", "HEAD"]),
        _ => "GET",
    };
    let mut fields = Fields::new();
    if odds(dice, 50) {
        add(&mut fields, "accept-language", one(dice, &["en", "de", "en, de", "en,de", "EN"]));
    }
    if odds(dice, 40) {
        add(&mut fields, "x-a", one(dice, &["1", "2", ""]));
    }
    if odds(dice, 40) {
        let codings = ["gzip", "br, gzip", "gzip;q=0", "identity", "zstd"];
        add(&mut fields, "accept-encoding", one(dice, &codings));
    }
    if odds(dice, 10) {
        add(&mut fields, "authorization", "Basic eDp5");
    }
    if odds(dice, 10) {
        add(&mut fields, "cookie", "session=1");
    }
    if odds(dice, 25) {
        let directives = [
            "no-cache",
            "no-store",
            "max-age=0",
            "max-age=10",
            "max-age=100",
            "min-fresh=5",
            "min-fresh=100",
            "max-stale",
            "max-stale=30",
            "only-if-cached",
            "max-age=x",
            "foo",
            "only-if-cached, max-stale=100",
            "max-age=1000, min-fresh=1",
        ];
        add(&mut fields, "cache-control", one(dice, &directives));
    }
    if odds(dice, 4) {
        add(&mut fields, "pragma", "no-cache");
    }
    if odds(dice, 15) {
        let tags = ["\"a\"", "W/\"a\"", "\"b\"", "\"x\", \"a\"", "*", "W/\"w\"", "\"w\"", "a"];
        add(&mut fields, "if-none-match", one(dice, &tags));
    }
    if odds(dice, 10) {
        let since = ["{-7200}", "{-100}", "{0}", "{-100 850}", "{-100 asc}", "junk", "{-50000}"];
        add(&mut fields, "if-modified-since", one(dice, &since));
    }
    if odds(dice, 3) {
        add(&mut fields, "if-match", one(dice, &["\"a\"", "W/\"a\"", "*", "\"z\""]));
    }
    if odds(dice, 3) {
        add(&mut fields, "if-unmodified-since", one(dice, &["{-100}", "{-50000}", "junk"]));
    }
    if odds(dice, 12) {
        let ranges = [
            "bytes=0-4",
            "bytes=-5",
            "bytes=15-",
            "bytes=0-0, 10-11",
            "bytes=20-",
            "bytes=100-200",
            "bytes=0-4, 5-9",
            "bytes=-0",
            "bytes=5-2",
            "lines=0-1",
            "bytes=",
            "BYTES=1-1",
            "bytes=3-3,4-19,0-99",
            "bytes=-99",
        ];
        add(&mut fields, "range", one(dice, &ranges));
        if odds(dice, 40) {
            add(
                &mut fields,
                "if-range",
                one(dice, &["\"a\"", "W/\"a\"", "\"z\"", "{-7200}", "junk"]),
            );
        }
    }
    Request {
        method,
        fields,
        content: odds(dice, 2) || !matches!(method, "GET" | "HEAD" | "OPTIONS"),
    }
}

fn cache_control(dice: &mut Dice, fields: &mut Fields) {
    let directives = [
        "max-age=60",
        "max-age=10",
        "max-age=100",
        "max-age=0",
        "max-age=3600",
        "s-maxage=30",
        "s-maxage=0",
        "no-cache",
        "no-store",
        "private",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "must-understand",
        "immutable",
        "stale-while-revalidate=30",
        "stale-if-error=50",
        "stale-while-revalidate=0",
        "stale-if-error=0",
        "max-age=\"60\"",
        "max-age=-1",
        "max-age=60.0",
        "max-age",
        "MAX-AGE=60",
        "max-age=99999999999999999999",
        "private=\"x-b\"",
        "no-cache=\"x-b\"",
        "no-cache=\"set-cookie\"",
        "x=\"no-store, max-age=5\"",
        "no-transform",
        "foo=bar",
    ];
    // What is common is drawn more often, so that histories have a life.
    let draw = |dice: &mut Dice| match dice.below(3) {
        0 => one(dice, &["max-age=60", "max-age=100", "max-age=10", "s-maxage=30"]),
        _ => directives[dice.below(directives.len())],
    };
    for _ in 0..=dice.below(8) / 6 {
        let list: Vec<&str> = (0..=dice.below(3)).map(|_| draw(dice)).collect();
        add(fields, "cache-control", &list.join(one(dice, &[",", ", ", " , ", ",, "])));
    }
}

fn reply(dice: &mut Dice) -> Reply {
    let common = [200, 200, 200, 200, 200, 200, 404, 301];
    let rare = [203, 204, 299, 302, 307, 400, 405, 410, 414, 500, 501, 502, 503, 504, 599];
    let status = match dice.below(20) {
        0 => 0,
        1..=3 => rare[dice.below(rare.len())],
        _ => common[dice.below(common.len())],
    };
    let mut fields = Fields::new();
    if odds(dice, 80) {
        cache_control(dice, &mut fields);
    }
    if odds(dice, 10) {
        let targeted = [
            "max-age=20",
            "max-age=20, must-revalidate",
            "no-store",
            "",
            "max-age=\"20\"",
            "&",
            "max-age=20;a=1",
            "no-cache",
            "private",
            "max-age=0",
            "public",
            "max-age=-5",
            "s-maxage=5",
            "max-age=100, max-age=5",
            "stale-if-error=20, max-age=1",
        ];
        add(&mut fields, "cdn-cache-control", one(dice, &targeted));
    }
    if odds(dice, 25) {
        let expires = ["{60}", "{-60}", "{0}", "0", "{100 850}", "{100 asc}", "Thu, 01 Jan 2099"];
        add(&mut fields, "expires", one(dice, &expires));
        if odds(dice, 10) {
            add(&mut fields, "expires", "{1000}");
        }
    }
    if odds(dice, 75) {
        let dates = ["{0}", "{0}", "{0}", "{-20}", "{-1}", "{500}", "junk", "{0 asc}"];
        add(&mut fields, "date", one(dice, &dates));
    }
    if odds(dice, 20) {
        add(
            &mut fields,
            "age",
            one(dice, &["5", "50", "0", "x", "9, 50", "-1", "99999999999", "5.5"]),
        );
    }
    if odds(dice, 60) {
        add(
            &mut fields,
            "etag",
            one(dice, &["\"a\"", "\"b\"", "W/\"w\"", "W/\"a\"", "junk", "\"c\""]),
        );
    }
    if odds(dice, 40) {
        let dates = ["{-7200}", "{-100}", "{0}", "{-50000}", "{100}", "junk"];
        add(&mut fields, "last-modified", one(dice, &dates));
    }
    if odds(dice, 40) {
        let vary = [
            "accept-language",
            "Accept-Language",
            "x-a",
            "accept-language, x-a",
            "accept-encoding",
            "x-a,, accept-language",
            "*",
            "x-a, *",
            "x-other",
            "authorization",
            ",",
        ];
        add(&mut fields, "vary", one(dice, &vary));
        if odds(dice, 10) {
            add(&mut fields, "vary", one(dice, &vary));
        }
    }
    if odds(dice, 5) {
        add(&mut fields, "set-cookie", "a=b");
    }
    if odds(dice, 50) {
        add(&mut fields, "x-b", one(dice, &["1", "2", "3"]));
    }
    let not_modified = odds(dice, 45).then(|| dice.below(4));
    Reply { status, fields, not_modified }
}

fn rules(dice: &mut Dice) -> Rules {
    let pick = |dice: &mut Dice, of: &[u64]| of[dice.below(of.len())];
    Rules {
        by_the_letter: odds(dice, 50),
        default: pick(dice, &[0, 20, 600]),
        least: pick(dice, &[0, 0, 15]),
        most: pick(dice, &[1 << 31, 50, 86_400]),
        while_revalidate: pick(dice, &[0, 0, 25]),
        if_error: pick(dice, &[0, 40, 86_400]),
        beside_s_maxage: odds(dice, 20),
        heuristic: odds(dice, 30),
    }
}

impl History {
    /// The history of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995);
        // The first draws of close seeds are close.
        for _ in 0..4 {
            dice.below(2);
        }
        let waits = [
            0, 0, 0, 500, 1000, 5000, 9_999, 10_000, 29_500, 30_000, 60_000, 61_000, 100_000,
            4_000_000,
        ];
        let delays = [0, 0, 0, 10, 999, 3000];
        let rules = rules(&mut dice);
        let steps = (0..2 + dice.below(7))
            .map(|_| Step {
                wait: waits[dice.below(waits.len())],
                request: request(&mut dice),
                delay: delays[dice.below(delays.len())],
                reply: reply(&mut dice),
            })
            .collect();
        Self { rules, steps }
    }

    /// The shortest history that can be had by leaving parts out, of which `fails` still holds.
    pub(super) fn shrink(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        loop {
            let smaller = self.smaller().into_iter().find(&fails);
            match smaller {
                Some(smaller) => self = smaller,
                None => return self,
            }
        }
    }

    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut change = |change: &dyn Fn(&mut Self)| {
            let mut smaller = self.clone();
            change(&mut smaller);
            all.push(smaller);
        };
        for (at, step) in self.steps.iter().enumerate() {
            change(&|history| {
                let gone = history.steps.remove(at);
                if let Some(next) = history.steps.get_mut(at) {
                    next.wait += gone.wait + gone.delay;
                }
            });
            for field in 0..step.request.fields.len() {
                change(&|history| drop(history.steps[at].request.fields.remove(field)));
            }
            for field in 0..step.reply.fields.len() {
                change(&|history| drop(history.steps[at].reply.fields.remove(field)));
            }
            if step.reply.not_modified.is_some() {
                change(&|history| history.steps[at].reply.not_modified = None);
            }
            if step.delay > 0 {
                change(&|history| history.steps[at].delay = 0);
            }
            if step.reply.status != 200 && step.reply.status != 0 {
                change(&|history| history.steps[at].reply.status = 200);
            }
        }
        all
    }
}
