//! Content that says of each of its bytes what it is: the path's, the version's, the place's. Whatever a node answers can be
//! told right, wrong or too old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::dice::Dice;
use harness::origin::{Request as Asked, Script};
use harness::wire::{End, Reply, Request};

use crate::cache::HOST;

/// Paths, each with a version of its own.
pub(super) const PATHS: usize = 96;
/// A body is blocks that begin with what they are.
const BLOCK: usize = 4096;
const LANGUAGES: [&str; 2] = ["en", "de"];

pub(super) fn path(n: usize) -> String {
    format!("/d{}/f{n}", n % 4)
}

fn tags(n: usize) -> String {
    format!("t{n} g{}", n % 3)
}

/// Small ones, some of many segments, and all between.
fn length(n: usize, version: u64) -> usize {
    let salt = (n * 7919 + version as usize * 104_729) % 10_007;
    match n % 8 {
        0..3 => 40 + salt % 3000,
        3..6 => 8_000 + salt * 11,
        6 => 300_000 + salt * 20,
        _ => 900_000 + salt * 60,
    }
}

fn has_variants(n: usize) -> bool {
    n % 7 == 3
}

fn has_validator(n: usize) -> bool {
    n % 5 != 4
}

fn body(n: usize, version: u64, language: &str) -> Vec<u8> {
    let mut filler = [0u8; BLOCK];
    for (at, byte) in filler.iter_mut().enumerate() {
        *byte = (at * 31 + n + version as usize) as u8;
    }
    let length = length(n, version);
    let mut body = Vec::with_capacity(length + BLOCK);
    for block in 0..length.div_ceil(BLOCK) {
        let start = body.len();
        body.extend_from_slice(&filler);
        let head = format!("{n} {version} {language} {block}\n");
        body[start..start + head.len()].copy_from_slice(head.as_bytes());
    }
    body.truncate(length);
    body
}

/// What the origin holds, and what clients may rely on.
pub(super) struct World {
    content: Vec<AtomicU64>,
    /// No client that asks now may get an older version.
    acknowledged: Vec<AtomicU64>,
    /// Nodes are expected to answer.
    pub(super) up: AtomicBool,
    pub(super) over: AtomicBool,
    pub(super) answered: AtomicU64,
    pub(super) hits: AtomicU64,
    pub(super) purged: AtomicU64,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        let numbers = || (0..PATHS).map(|_| AtomicU64::new(1)).collect();
        Arc::new(Self {
            content: numbers(),
            acknowledged: numbers(),
            up: AtomicBool::new(true),
            over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            purged: AtomicU64::new(0),
        })
    }

    /// What the origin answers: the version of the moment.
    pub(super) fn answer(&self, request: &Asked) -> Script {
        let n: usize = request.path().rsplit_once('f').unwrap().1.parse().unwrap();
        let version = self.content[n].load(Ordering::SeqCst);
        let asked = request.field("accept-language").unwrap_or_default();
        let language = match has_variants(n) {
            true => LANGUAGES.into_iter().find(|language| *language == asked).unwrap_or("en"),
            false => "all",
        };
        let tag = format!("\"{n}-{version}-{language}\"");
        let same = |name: &str| request.field(name).map(|value| value.contains(&tag));
        let body = body(n, version, language);
        let part = request.field("range").filter(|_| has_validator(n)).and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            let last = last.parse().unwrap_or(body.len() - 1).min(body.len() - 1);
            Some((first.parse::<usize>().ok()?, last))
        });
        let script = match part {
            _ if same("if-match") == Some(false) => Script::status(412, ""),
            _ if same("if-none-match") == Some(true) => Script::status(304, ""),
            Some((first, last)) if same("if-range") != Some(false) && first <= last => {
                let range = format!("bytes {first}-{last}/{}", body.len());
                Script::status(206, &body[first..=last]).field("Content-Range", &range)
            }
            _ => Script::ok(body),
        };
        let script = script
            .cache_control("max-age=600")
            .field("Surrogate-Key", &tags(n))
            .field("X-Version", &format!("{n} {version} {language}"));
        let script = if has_validator(n) { script.field("ETag", &tag) } else { script };
        if has_variants(n) { script.field("Vary", "Accept-Language") } else { script }
    }

    /// One request of a client: whatever answer comes must be right, and no older than what was acknowledged before. False:
    /// none came.
    pub(super) fn ask(&self, node: std::net::SocketAddr, dice: &mut Dice) -> bool {
        // A few are asked for much more often than the others.
        let n = dice.below(PATHS).min(dice.below(PATHS));
        let target = path(n);
        let least = self.acknowledged[n].load(Ordering::SeqCst);
        let language = LANGUAGES[dice.below(2)];
        let mut request = Request::get(HOST, &target).field("Accept-Language", language);
        let range = (dice.below(4) == 0).then(|| {
            let first = dice.below(length(n, least));
            (first, first + dice.below(100_000))
        });
        if let Some((first, last)) = range {
            request = request.field("Range", format!("bytes={first}-{last}"));
        }
        let Some(reply) = request.try_send(node) else { return false };
        if reply.end != End::Complete {
            // Cut off: the client knows that it is not whole.
            return false;
        }
        self.judge(n, &reply, least, language, range);
        self.answered.fetch_add(1, Ordering::SeqCst);
        let hit = reply.cache_status().contains("; hit");
        self.hits.fetch_add(u64::from(hit), Ordering::SeqCst);
        true
    }

    fn judge(
        &self,
        n: usize,
        reply: &Reply,
        least: u64,
        language: &str,
        range: Option<(usize, usize)>,
    ) {
        let told = format!("{} ({}, {range:?})", path(n), reply.cache_status());
        if reply.status == 416 {
            return;
        }
        assert!(reply.status == 200 || reply.status == 206, "{told}: {}", reply.status);
        let text = reply.field("x-version").unwrap_or_else(|| panic!("{told}: no version"));
        let words: Vec<&str> = text.split(' ').collect();
        let (of, version) = (words[0].parse::<usize>().unwrap(), words[1].parse::<u64>().unwrap());
        assert_eq!(of, n, "{told}: another path's");
        assert!(version >= least, "{told}: version {version}, though {least} was acknowledged");
        assert!(version <= self.content[n].load(Ordering::SeqCst), "{told}: version {version}");
        let spoken = if has_variants(n) { language } else { "all" };
        assert_eq!(words[2], spoken, "{told}: another variant");
        let whole = body(n, version, words[2]);
        let expected = match (reply.status, range) {
            (206, Some((first, last))) => &whole[first..=last.min(whole.len() - 1)],
            _ => &whole[..],
        };
        assert_eq!(reply.body.len(), expected.len(), "{told}: version {version}: length");
        let wrong = reply.body.iter().zip(expected).position(|(one, other)| one != other);
        assert_eq!(wrong, None, "{told}: version {version}: a wrong byte");
    }

    /// Changes some content and purges it, by whatever covers it. What was acknowledged holds from then on.
    pub(super) fn change_and_purge(
        &self,
        dice: &mut Dice,
        (http, admin): (std::net::SocketAddr, std::net::SocketAddr),
    ) -> bool {
        let n = dice.below(PATHS).min(dice.below(PATHS));
        let like = |same: &dyn Fn(usize) -> bool| (0..PATHS).filter(|n| same(*n)).collect();
        let (covered, order): (Vec<usize>, _) = match dice.below(24) {
            0..10 => (vec![n], format!("{{\"urls\": [\"{HOST}{}\"]", path(n))),
            10..14 => (vec![n], format!("{{\"tags\": [\"t{n}\"]")),
            14..16 => {
                (like(&|m| m % 4 == n % 4), format!("{{\"prefixes\": [\"{HOST}/d{}/\"]", n % 4))
            }
            16..18 => (like(&|m| m % 3 == n % 3), format!("{{\"tags\": [\"g{}\"]", n % 3)),
            18 => (like(&|_| true), format!("{{\"hosts\": [\"{HOST}\"]")),
            _ => (vec![n], String::new()),
        };
        let change = |n: &usize| (*n, self.content[*n].fetch_add(1, Ordering::SeqCst) + 1);
        let versions: Vec<(usize, u64)> = covered.iter().map(change).collect();
        let target = path(n);
        let body = format!("{order}, \"soft\": {}}}", dice.below(3) == 0);
        let host = admin.to_string();
        let reply = match order.is_empty() {
            true => {
                // A method that nobody knows to be safe purges, too (RFC 9111 §4.4).
                let method = ["PURGE", "POST"][dice.below(2)];
                Request::new(method, HOST, &target).try_send(http)
            }
            false => Request::new("POST", &host, "/v1/purge")
                .field("Content-Type", "application/json")
                .body(body.as_str())
                .try_send(admin),
        };
        let Some(reply) = reply.filter(|reply| reply.end == End::Complete) else { return false };
        assert_eq!(reply.status, 200, "{order}: {}", reply.text());
        for (n, version) in versions {
            self.acknowledged[n].fetch_max(version, Ordering::SeqCst);
        }
        self.purged.fetch_add(1, Ordering::SeqCst);
        true
    }
}
