//! HTTP caches side by side: one trace through each of them, with the same memory and disk, before the same origin.
//!
//! Prints a table, writes `target/bench/replay.json`. The last line is `ok`, or what is below its goal.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark starts servers, goes by the clock, prints and writes files"
)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use benches::cdn::Class;
use benches::dns::load::pin;
use benches::http::client::{self, Seen};
use benches::http::origin::Origin;
use benches::http::peers::{Budget, DAILY_WRITES, Kind, Place, find};
use benches::http::table::{Predicted, Row, below_goal, table};
use benches::process::{Server, free_port};
use benches::trace::Request;
use clap::Parser;
use edge_cache::predict::Tally;
use edge_cache::predict::sim::{Answer, DiskSetup, SEGMENT_SIZE, Setup, Sim};
use edge_cache::store::policy::Kind as Policy;
use indicatif::{ProgressBar, ProgressStyle};

/// edge-cache beside nginx, Varnish, Traffic Server and Squid, through real sockets.
///
/// Every cache gets the same requests in the same order, one worker and the first core; client and origin have the second.
/// Every byte is compared with what the origin has. The first quarter warms up. Hit ratios are what the origin was spared.
/// Exit code 1: something is below its goal.
#[derive(Debug, Parser)]
#[command(name = "http_replay")]
struct Cli {
    /// A short trace.
    #[arg(long)]
    quick: bool,
    /// Only edge-cache.
    #[arg(long)]
    no_peers: bool,
    /// Objects of the trace; default: 40,000, `--quick` 6,000.
    #[arg(long)]
    objects: Option<u64>,
    /// The class of content.
    #[arg(long, default_value = "web-us")]
    class: String,
    /// Only what the simulator says, of memory tiers that take all that a node is given.
    #[arg(long)]
    simulated: bool,
    /// Only these caches, by their names.
    #[arg(long)]
    only: Vec<String>,
    /// Connections at once.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Where the JSON is written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The folder of the built `edge-cache`.
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
}

/// The first of so many parts of the trace is not counted.
const WARM_UP: usize = 4;
const START_TIME: Duration = Duration::from_secs(30);

struct Trial<'a> {
    requests: &'a [Request],
    origin: &'a Origin,
    programs: &'a Path,
    scratch: &'a Path,
    connections: usize,
    core: usize,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let cores = std::thread::available_parallelism()?.get();
    let (core, load_core) = (0, usize::from(cores > 1));
    pin(load_core)?;
    let objects = cli.objects.unwrap_or(if cli.quick { 6_000 } else { 40_000 });
    let class = Class::named(&cli.class).with_context(|| format!("no class {}", cli.class))?;
    let requests = class.sample(objects, 0).requests;
    let count = requests.len();
    let sizes: HashMap<u64, u64> =
        requests.iter().map(|request| (request.id, request.bytes)).collect();
    let footprint: u64 = sizes.values().sum();
    let asked: u64 = requests.iter().map(|request| request.bytes).sum();
    println!(
        "{count} requests for {} objects of {:.2} GB, {:.2} GB in all",
        sizes.len(),
        footprint as f64 / 1e9,
        asked as f64 / 1e9
    );
    let of_footprint =
        |thousandths: u64| (footprint / 1000 * thousandths).next_multiple_of(1 << 20);
    let settings = [
        ("memory 10 %", Budget { memory: of_footprint(100), disk: None }),
        (
            "memory 3 % + disk 15 %",
            Budget { memory: of_footprint(30), disk: Some(of_footprint(150)) },
        ),
    ];
    std::fs::create_dir_all(&cli.out)
        .with_context(|| format!("cannot make {}", cli.out.display()))?;
    let scratch = tempfile::tempdir_in(&cli.out)?;
    let origin = Origin::start()?;
    let trial = Trial {
        requests: &requests,
        origin: &origin,
        programs: &std::path::absolute(&cli.programs)?,
        scratch: &std::path::absolute(scratch.path())?,
        connections: cli.connections,
        core,
    };
    if cli.simulated {
        for (setting, budget) in settings {
            let own = Own { capacity: budget.memory, took: None };
            let Predicted { object, byte, .. } = trial.simulate(setting, budget, own);
            println!("{setting:<24} {object:.4} {byte:.4}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let kinds = kinds(&cli)?;
    let (mut rows, mut predicted) = (Vec::new(), Vec::new());
    for (setting, budget) in settings {
        for kind in &kinds {
            let (row, own) = trial.fitting(setting, budget, *kind)?;
            rows.push(row);
            predicted.extend(own.map(|own| trial.simulate(setting, budget, own)));
        }
    }
    println!("{}", table(&rows, &predicted));
    let json = serde_json::json!({
        "requests": count, "objects": sizes.len(), "footprint": footprint, "bytes": asked,
        "rows": rows, "simulated": predicted,
    });
    let file = cli.out.join("replay.json");
    std::fs::write(&file, format!("{json:#}\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let below = below_goal(&rows, &predicted);
    below.iter().for_each(|line| println!("{line}"));
    if below.is_empty() {
        println!("ok");
    }
    Ok(if below.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn kinds(cli: &Cli) -> anyhow::Result<Vec<Kind>> {
    let wanted = |kind: &Kind| {
        (cli.only.is_empty() || cli.only.iter().any(|name| name == kind.name()))
            && (!cli.no_peers || *kind == Kind::EdgeCache)
    };
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(wanted).collect();
    for (program, package) in kinds.iter().filter_map(|kind| kind.needs()) {
        find(program)
            .with_context(|| format!("install {package}, or leave peers out by --no-peers"))?;
    }
    Ok(kinds)
}

/// What the simulator has to know of our own node.
#[derive(Clone, Copy)]
struct Own {
    /// What its memory tier had room for.
    capacity: u64,
    /// How long the trace took it; the time that the trace says, if not.
    took: Option<Duration>,
}

/// Runs that a cache gets to keep to what it may take.
const RUNS: usize = 3;

impl Trial<'_> {
    /// Its row, when it takes what it may, or of the last run in which it took no more; and of ours what the simulator has to
    /// know.
    fn fitting(
        &self,
        setting: &'static str,
        budget: Budget,
        kind: Kind,
    ) -> anyhow::Result<(Row, Option<Own>)> {
        let mut told = budget;
        let mut best: Option<(Row, Option<Own>)> = None;
        for _ in 0..RUNS {
            let (row, own) = self.run(setting, budget, told, kind)?;
            let next = budget.next(told, row.taken);
            if best.as_ref().is_none_or(|(best, _)| best.is_over() || !row.is_over()) {
                best = Some((row, own));
            }
            match next {
                Some(next) => told = next,
                None => break,
            }
        }
        best.context("no run")
    }

    fn run(
        &self,
        setting: &'static str,
        budget: Budget,
        told: Budget,
        kind: Kind,
    ) -> anyhow::Result<(Row, Option<Own>)> {
        let dir = tempfile::tempdir_in(self.scratch)?;
        let memory = tempfile::tempdir_in("/dev/shm")?;
        // Peers that give up root's rights must reach what is theirs below.
        for folder in [self.scratch, dir.path(), memory.path()] {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        }
        let here = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let address = here(free_port()?);
        let place = Place {
            dir: dir.path(),
            memory: memory.path(),
            address,
            admin: here(free_port()?),
            origin: self.origin.address,
            programs: self.programs,
        };
        let program = kind.prepare(told, &place)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let replay = |requests: &[Request], progress: &ProgressBar| -> Seen {
            let told = |count| progress.inc(count);
            let all = client::replay(address, requests, self.connections, told);
            tokio::task::LocalSet::new().block_on(&runtime, all)
        };
        let started = Instant::now();
        let mut server = Server::start(kind.name(), self.core, &program, &dir.path().join("log"))?;
        let hidden = ProgressBar::hidden();
        let probe = [Request { at: 0, id: 0, bytes: 1, ttl: 0 }];
        server.wait_ready(started, START_TIME, || {
            std::thread::sleep(Duration::from_millis(20));
            std::net::TcpStream::connect(address).is_ok() && replay(&probe, &hidden).right == 1
        })?;
        let style = ProgressStyle::with_template("{msg:<34} {bar:30} {pos}/{len} {elapsed}")?;
        let progress = ProgressBar::new(self.requests.len() as u64).with_style(style);
        progress.set_message(format!("{setting}, {}", kind.name()));
        let (warm_up, counted) = self.requests.split_at(self.requests.len() / WARM_UP);
        let began = Instant::now();
        let warming = replay(warm_up, &progress);
        let (asked, cpu, written) = (self.origin.asked(), server.cpu(), server.written());
        let (seen, own) = match kind {
            Kind::EdgeCache => {
                let (seen, capacity) = while_asked(place.admin, || replay(counted, &progress));
                (seen, Some(Own { capacity: capacity?, took: Some(began.elapsed()) }))
            }
            _ => (replay(counted, &progress), None),
        };
        progress.finish_and_clear();
        let (asked, cpu) = (self.origin.asked().since(asked), server.cpu().since(cpu));
        let (requests, bytes) =
            (counted.len() as f64, counted.iter().map(|request| request.bytes).sum::<u64>() as f64);
        let spent = cpu.user + cpu.system;
        let row = Row {
            setting,
            budget,
            told,
            taken: Budget {
                memory: server.own_memory() + taken(memory.path())?,
                disk: budget.disk.and(Some(taken(dir.path())?)),
            },
            server: kind,
            object: 1.0 - asked.requests as f64 / requests,
            byte: 1.0 - asked.bytes as f64 / bytes,
            origin_bytes: asked.bytes,
            resident: server.memory(),
            cpu_per_gigabyte: spent / bytes * 1e9,
            cpu_per_request: spent / requests * 1e6,
            first_byte: [seen.quantile(0.5), seen.quantile(0.99)],
            written_per_byte: (server.written() - written) as f64 / bytes,
            wrong: warming.wrong + seen.wrong,
            first_wrong: warming.first_wrong.or(seen.first_wrong),
        };
        Ok((row, own))
    }

    /// What the simulator says of our node: what the origin is spared, as for the rows.
    fn simulate(&self, setting: &'static str, budget: Budget, own: Own) -> Predicted {
        let disk = budget.disk.map(|size| DiskSetup { size, daily_writes: size * DAILY_WRITES });
        let mut node = Sim::new(&Setup {
            policy: Policy::SizeAware,
            memory: own.capacity,
            disk,
            segment: SEGMENT_SIZE,
            ttl: None,
        });
        let (mut tally, mut requests) = (Tally::default(), 0);
        let span = self.requests.last().map_or(1, |last| last.at.max(1));
        let pace = own.took.map_or(1.0, |took| took.as_secs_f64() * 1e3 / span as f64);
        for (at, request) in self.requests.iter().enumerate() {
            let time = Duration::from_millis(request.at).mul_f64(pace);
            let answer = node.request(request.id, request.bytes, time);
            if at >= self.requests.len() / WARM_UP {
                let had = answer.had(request.bytes, request.bytes);
                tally.count_part(answer.is_hit(), request.bytes, had, 1.0);
                // Several for a body of which parts are here.
                if let Answer::Missed { requests: asked, .. } = answer {
                    requests += asked;
                }
            }
        }
        let byte = tally.ratios().map_or(0.0, |ratios| ratios.bytes);
        Predicted { setting, object: 1.0 - requests as f64 / tally.requests.max(1.0), byte }
    }
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something, and tells what the memory tier of a node has room for meanwhile, on the average.
fn while_asked<T>(admin: SocketAddr, work: impl FnOnce() -> T) -> (T, anyhow::Result<u64>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let (mut sum, mut count) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                sum += capacity(admin)?;
                count += 1;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(sum / count.max(1))
        });
        // Also where that panics, which would wait for the asking to end.
        let end = Ending(&over);
        let done = work();
        drop(end);
        let asked = asked.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it was not asked")));
        (done, asked)
    })
}

/// What the memory tier of a node has room for.
fn capacity(admin: SocketAddr) -> anyhow::Result<u64> {
    let mut stream = std::net::TcpStream::connect(admin)?;
    stream.write_all(format!("GET /v1/status HTTP/1.0\r\nHost: {admin}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let status: serde_json::Value = serde_json::from_str(body)?;
    status["memory"]["capacity"].as_u64().with_context(|| format!("no capacity in {body}"))
}

/// What the files below a folder take.
fn taken(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A cache may remove a file meanwhile.
        let Ok(kind) = entry.file_type() else { continue };
        sum += match kind.is_dir() {
            true => taken(&entry.path()).unwrap_or(0),
            false => entry.metadata().map_or(0, |metadata| metadata.blocks() * 512),
        };
    }
    Ok(sum)
}
