//! A running edge, asked by a client on one side and answered by an origin on the other, by a clock that stands still
//! between the moments of a history.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use harness::clock::Clock;
use harness::fleet::Fleet;
use harness::origin::{Origin as Server, Request as Arrived, Script};
use harness::plan::Plan;
use harness::wait;
use harness::wire::{End, Reply, Request as Wanted};
use serde_json::Value;

use super::fields::{Fields, lines};
use super::history::{History, Request, Rules};
use super::{Answer, Cache, Done, LENGTH, Origin, Told, play, word};

/// A question that waits for its answer: the fields, and where to.
type Question = (Fields, Sender<Option<(u16, Fields)>>);

/// One edge, and a site for each set of rules that histories have.
struct Running {
    fleet: Fleet,
    clock: Clock,
    now: u64,
    questions: Receiver<Question>,
    histories: usize,
    host: String,
    path: String,
    /// Statuses of all contents that the origin has sent.
    statuses: BTreeMap<u64, u16>,
}

/// Lets nothing but the times of the history pass: the first moment of all.
const START: u64 = super::BEGIN;

fn policy(rules: &Rules) -> String {
    let Rules {
        by_the_letter, default, least, most, while_revalidate, if_error, heuristic, ..
    } = rules;
    let profile = if *by_the_letter { "rfc" } else { "safe" };
    format!(
        "profile = \"{profile}\"\nranges = \"whole\"\nheuristic = {heuristic}\n\
         ttl = {{ default = \"{default}s\", min = \"{least}s\", max = \"{most}s\" }}\n\
         stale = {{ while_revalidate = \"{while_revalidate}s\", if_error = \"{if_error}s\", \
         after_wait = \"10s\" }}"
    )
}

impl Running {
    /// A fleet whose sites `h0`, `h1`… have these rules.
    fn start(all: &[Rules]) -> Self {
        let (asks, questions) = channel::<Question>();
        let asks = Mutex::new(asks);
        let origin = Server::start();
        let mut plan = Plan::new()
            .datacenter("icn", 37.46, 126.44)
            .edge("e1", "icn")
            .toml(&format!("[origin.static]\nservers = [ {{ url = \"{}\" }} ]", origin.url()));
        for (number, rules) in all.iter().enumerate() {
            plan = plan.toml(&format!("[cache.c{number}]\n{}", policy(rules))).toml(&format!(
                "[site.s{number}]\nhosts = [\"h{number}.test\"]\n\
                 routes = [ {{ path = \"/*\", origin = \"static\", cache = \"c{number}\", \
                 methods = [\"GET\", \"HEAD\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\", \"OPTIONS\", \"M-SEARCH\"] }} ]"
            ));
        }
        origin.route_with("/*", move |arrived| {
            let (answers, answer) = channel();
            let question = (fields(arrived), answers);
            asks.lock().unwrap().send(question).unwrap();
            script(answer.recv().ok().flatten())
        });
        // It lives as long as its listener, which the last test ends.
        std::mem::forget(origin);
        let mut fleet = plan.write();
        let clock = Clock::new(fleet.dir(), START);
        fleet.node_mut("e1").run_by(&clock);
        fleet.start_all();
        Self {
            fleet,
            clock,
            now: START,
            questions,
            histories: 0,
            host: String::new(),
            path: String::new(),
            statuses: BTreeMap::new(),
        }
    }
}

fn fields(arrived: &Arrived) -> Fields {
    let all = arrived.fields.iter();
    all.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

/// The content of a number.
fn content(id: u64) -> Vec<u8> {
    format!("{id:0>width$}", width = usize::try_from(LENGTH).unwrap()).into_bytes()
}

fn number(fields: &Fields) -> Option<u64> {
    lines(fields, "x-id").first().and_then(|id| id.parse().ok())
}

fn script(answer: Option<(u16, Fields)>) -> Script {
    let Some((status, fields)) = answer else { return Script::status(500, "").reset() };
    let script = Script::status(status, content(number(&fields).unwrap_or(0))).undated();
    fields.iter().fold(script, |script, (name, value)| script.field(name, value))
}

/// For a query of the admin API.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Running {
    /// What the request selects of what is stored.
    fn selected(&self, request: &Request) -> Option<(u64, Fields)> {
        let mut target = format!(
            "/v1/explain?method={}&url={}",
            request.method,
            escaped(&format!("http://{}{}", self.host, self.path))
        );
        for (name, value) in &request.fields {
            target += &format!("&header={name}:{}", escaped(value));
        }
        let told = self.fleet.node("e1").admin_json(&target);
        let mut stored = told["stored"].as_array().unwrap().iter();
        stored.find(|stored| stored["selected"] == true).map(object)
    }

    /// What is stored for the URL: all fields but those of the framing, which the history does not know.
    fn held(&self) -> Vec<(u64, Fields)> {
        let url = escaped(&format!("http://{}{}", self.host, self.path));
        let told = self.fleet.node("e1").admin_json(&format!("/v1/object?url={url}"));
        told["stored"].as_array().map_or(&[][..], Vec::as_slice).iter().map(object).collect()
    }

    /// Sends the request and answers the origin's questions until the response is here.
    fn exchange(
        &mut self,
        request: &Request,
        now: u64,
        origin: &mut Origin<'_>,
        asked: &mut Vec<Option<(u16, Fields)>>,
    ) -> (Reply, u64) {
        let mut then = now;
        let (clock, questions, statuses) = (&self.clock, &self.questions, &mut self.statuses);
        let mut answer = |question: Question| {
            let (sent, answers) = question;
            // Who is not answered asks again: for the history that is one failure.
            let answer = match asked.last() {
                Some(None) => None,
                _ => {
                    let (answer, at) = origin(&sent, then);
                    then = at;
                    clock.set(then);
                    if let Some((status, fields)) = &answer
                        && let Some(id) = number(fields)
                    {
                        statuses.insert(id, *status);
                    }
                    asked.push(answer.clone());
                    answer
                }
            };
            answers.send(answer).unwrap();
        };
        let node = self.fleet.node("e1");
        let reply = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut wanted = Wanted::new(request.method, &self.host, &self.path);
                for (name, value) in &request.fields {
                    wanted = wanted.field(name, value);
                }
                if request.content {
                    wanted = wanted.body("x");
                }
                wanted.send(node.http())
            });
            while !client.is_finished() {
                if let Ok(question) = questions.recv_timeout(Duration::from_micros(200)) {
                    answer(question);
                }
            }
            client.join().unwrap()
        });
        (reply, then)
    }
}

fn object(stored: &Value) -> (u64, Fields) {
    let list = stored["headers"].as_array().unwrap().iter();
    let mut fields: Fields = list
        .map(|pair| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned()))
        .collect();
    fields.retain(|(name, _)| name != "content-length");
    (number(&fields).unwrap_or(u64::MAX), fields)
}

/// Which bytes a response has of a content, and whether they are its.
fn parts(reply: &Reply, method: &str, id: u64) -> Answer {
    let whole = content(id);
    let stretch = |range: &str| {
        let (range, length) = range.strip_prefix("bytes ").unwrap().split_once('/').unwrap();
        assert_eq!(length, LENGTH.to_string());
        let (first, last) = range.split_once('-').unwrap();
        (first.parse::<u64>().unwrap(), last.parse::<u64>().unwrap())
    };
    let bytes = |(first, last): (u64, u64)| &whole[first as usize..=last as usize];
    if reply.status != 206 {
        if reply.status == 200 && method == "GET" {
            assert_eq!(reply.body, whole, "the bytes of another content");
        }
        return (reply.status, Vec::new());
    }
    if let Some(range) = reply.field("content-range") {
        let part = stretch(range);
        assert_eq!(reply.body, bytes(part), "the bytes of another content");
        return (206, vec![part]);
    }
    let kind = reply.field("content-type").unwrap_or_default();
    let (_, boundary) = kind.split_once("boundary=").expect("no boundary");
    let text = reply.text();
    let mut parts = Vec::new();
    for part in text.split(&format!("--{boundary}")).filter(|part| part.contains("\r\n\r\n")) {
        let (head, body) = part.split_once("\r\n\r\n").unwrap();
        let range = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-range").then_some(value)
        });
        let range = stretch(range.expect("a part without Content-Range"));
        assert_eq!(body.trim_end_matches("\r\n").as_bytes(), bytes(range));
        parts.push(range);
    }
    parts.sort_unstable();
    (206, parts)
}

impl Cache for Running {
    fn begin(&mut self) -> u64 {
        self.histories += 1;
        self.path = format!("/{}", self.histories);
        // Far beyond every lifetime, mark and window of the last one, and at the beginning of a second.
        self.now = (self.now / 1000 + 1_000_000) * 1000;
        self.now
    }

    fn serve(&mut self, request: &Request, now: u64, origin: &mut Origin<'_>) -> Done {
        self.clock.set(now);
        let selected = self.selected(request);
        let mut asked = Vec::new();
        let (reply, then) = self.exchange(request, now, origin, &mut asked);
        self.now = then;
        assert_eq!(reply.end, End::Complete);
        let status = reply.cache_status();
        let detail = status.rsplit_once("detail=").map_or("", |(_, detail)| detail);
        let came = asked.last().and_then(|answer| number(&answer.as_ref()?.1));
        // Who wants no content does not wait for it; that it is stored is told when its head is here, and what it replaces
        // goes when it is over.
        let held = wait::until("what is said to be stored to be there, and no fetch", || {
            let fetches = self.fleet.node("e1").admin_json("/v1/status")["fills"].as_u64();
            let held = self.held();
            let told = status.contains("; stored") && came.is_some();
            let is_there = !told || held.iter().any(|held| Some(held.0) == came);
            (is_there && fetches == Some(0)).then_some(held)
        });
        let shown = lines(&reply.head.fields, "x-id").first().and_then(|id| id.parse().ok());
        let id = shown.or_else(|| selected.map(|(id, _)| id)).unwrap_or(u64::MAX);
        let age = reply.field("age").and_then(|age| age.parse::<u64>().ok());
        let last = asked.last().and_then(|answer| answer.as_ref());
        // Of what is fetched as a whole and not kept, a part is asked for once more (RFC 9110 §14.2: of GET).
        let again = asked.len() == 2
            && request.method == "GET"
            && lines(&request.fields, "range").len() == 1
            && matches!(asked[0], Some((200, _)));
        let told = match detail {
            "known-uncacheable" if again => Told::Fetched { status: 200, stored: false },
            "fresh" | "stale-by-request" => {
                Told::Reused { id, age: age.unwrap_or(u64::MAX), behind: false }
            }
            "stale-if-error" => Told::Rescued { id, age: age.unwrap_or(u64::MAX) },
            "only-if-cached" => Told::Refused,
            "known-uncacheable"
            | "method-not-cached"
            | "request-content"
            | "origin-precondition" => Told::Passed,
            _ if status.contains("fwd-status=304") => {
                let fields = self.selected(request).filter(|held| held.0 == id);
                let fields = fields.map_or_else(|| reply.head.fields.clone(), |held| held.1);
                Told::Revalidated { id, status: self.statuses[&id], fields }
            }
            _ => match last {
                Some((status, fields)) => Told::Fetched {
                    status: *status,
                    stored: held.iter().any(|held| Some(held.0) == number(fields)),
                },
                None => Told::Failed,
            },
        };
        let answered = super::served(&told).map(|id| parts(&reply, request.method, id));
        if std::env::var_os("MODEL_TRACE").is_some() {
            eprintln!(
                "{request:?}\n  {} {status} {:?}\n  {told:?}",
                reply.status, reply.head.fields
            );
        }
        Done { told, answered, then, held }
    }
}

/// The history without what goes on behind responses: when that is over cannot be seen from outside.
fn calm(mut history: History) -> History {
    history.rules.while_revalidate = 0;
    // No configuration says this, and none has a default beyond its bounds.
    history.rules.beside_s_maxage = false;
    history.rules.default = history.rules.default.clamp(history.rules.least, history.rules.most);
    for (_, value) in history.steps.iter_mut().flat_map(|step| &mut step.reply.fields) {
        *value = value.replace("stale-while-revalidate=30", "stale-while-revalidate=0");
    }
    history
}

/// As many rules as one fleet has.
const SITES: u64 = 12;

#[test]
fn a_running_edge_does_what_the_reference_allows() {
    let number = |name, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (first, count) = (number("MODEL_SEED", 1), number("MODEL_HISTORIES", 400));
    let rules: Vec<Rules> = (0..SITES).map(|seed| calm(History::of(seed)).rules).collect();
    let mut node = Running::start(&rules);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + count {
        let site = seed % SITES;
        node.host = format!("h{site}.test");
        let history = History { rules: rules[site as usize].clone(), ..calm(History::of(seed)) };
        let mut tally = |done: &Done| *seen.entry(word(done)).or_default() += 1;
        if let Err(first_why) = play(&history, &mut node, &mut tally) {
            let node = std::cell::RefCell::new(node);
            let run = |history: &History| play(history, &mut *node.borrow_mut(), &mut |_| {});
            let shortest = history.shrink(|history| run(history).is_err());
            let why = run(&shortest).err().unwrap_or(first_why);
            panic!(
                "seed {seed} (MODEL_SEED={seed} MODEL_HISTORIES=1 repeats it)\n{shortest}\n{why}"
            );
        }
    }
    println!("{count} histories from seed {first}: {seen:?}");
    // Histories in which nothing happens would show nothing.
    let kinds = ["reused", "revalidated", "stored", "fetched", "stale for an error", "passed"];
    if count >= 400 {
        for kind in kinds.into_iter().chain(["failed", "refused"]) {
            let times = seen.get(kind).copied().unwrap_or(0);
            assert!(times >= count / 100, "{kind}: only {times} times in {count} histories");
        }
    }
}
