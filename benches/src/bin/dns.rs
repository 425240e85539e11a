//! DNS servers side by side: the same zone, map and queries, one core for the server, another for the load.
//!
//! Prints tables, writes `target/bench/dns.json` and `.svg`. The last line is `ok`, or what is below its goal.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark starts servers, goes by the clock, prints and writes files"
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use benches::dns::cases::{Case, sources};
use benches::dns::goals::{Growth, Measured, Reloads, Round, Row, SAMPLES_A_SECOND, rows};
use benches::dns::load::{Ask, Load, Seen, pin};
use benches::dns::peers::{Kind, Place, find};
use benches::dns::world::{APEX, World, bench};
use benches::dns::{echo, hickory, ready, stream, table};
use benches::process::{Server, free_port};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

/// geodns beside gdnsd, Knot, NSD, BIND, PowerDNS, hickory-server and a bare echo.
///
/// Every server gets the same zone (10,000 static names, steered names with 4 datacenters, a map of 100,000 networks)
/// and the same queries, one worker and the first core; the load has the second. Rounds are interleaved, figures are
/// medians; CPU is that of the server's processes in /proc. geodns runs with cookies, rate limiting for every client,
/// counters and address-preserving receive on. Goals are ratios within the run. Exit code 1: something is below its goal.
#[derive(Debug, Parser)]
#[command(name = "dns")]
struct Cli {
    /// Short rounds: two minutes instead of half an hour. User times then count with what chance may have done to them.
    #[arg(long)]
    quick: bool,
    /// Only geodns and the echo.
    #[arg(long)]
    no_peers: bool,
    /// Where the JSON, the SVG and the query files are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The folder of the built `geodns`.
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serves as the floor that servers are compared with.
    #[command(hide = true)]
    Echo { address: SocketAddrV4 },
    /// Serves zones with hickory-server.
    #[command(hide = true)]
    Hickory { address: SocketAddrV4, dir: PathBuf, zones: Vec<String> },
}

/// Static names, and networks of the map.
const NAMES: u64 = 10_000;
const NETWORKS: usize = 100_000;
/// Static names of the zone that is held against the small one.
const MANY_NAMES: u64 = 1_000_000;
const LOAD_TIME: Duration = Duration::from_secs(300);

/// How long and how often.
struct Effort {
    rounds: u32,
    warm_up: Duration,
    round: Duration,
    reloads: Duration,
}

struct Running {
    server: Server,
    address: SocketAddrV4,
    admin: SocketAddrV4,
    dir: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    match &cli.role {
        Some(Role::Echo { address }) => echo::serve(*address)?,
        Some(Role::Hickory { address, dir, zones }) => {
            hickory::serve(*address, dir, zones)?;
        }
        // Servers end and their files go before this process does.
        None => return Ok(if compare(&cli)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures everything, and tells whether all goals are met.
fn compare(cli: &Cli) -> anyhow::Result<bool> {
    let cores = std::thread::available_parallelism()?.get();
    let (server_core, load_core) = (0, usize::from(cores > 1));
    pin(load_core)?;
    let effort = if cli.quick {
        let (warm_up, round) = (Duration::from_millis(100), Duration::from_millis(600));
        Effort { rounds: 3, warm_up, round, reloads: Duration::from_secs(4) }
    } else {
        let (warm_up, round) = (Duration::from_millis(500), Duration::from_secs(4));
        Effort { rounds: 5, warm_up, round, reloads: Duration::from_secs(20) }
    };
    let out = &cli.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    write_queries(out)?;
    let kinds = kinds(cli.no_peers)?;
    let world = bench(NAMES, NETWORKS);
    let scratch = tempfile::tempdir()?;
    let programs = std::path::absolute(&cli.programs)?;
    let mut running = BTreeMap::new();
    for kind in kinds {
        let dir = scratch.path().join(kind.name().replace(' ', "-"));
        running.insert(kind, start(kind, &world, &dir, &programs, server_core)?);
    }

    let rounds = measure(&running, &effort)?;
    let rows = rows(&rounds);
    println!("{}", table::rows(&rows));
    let mut servers = Vec::new();
    for (kind, running) in &running {
        let (memory, ready) = (running.server.memory(), running.server.ready_after);
        println!(
            "{:<13} {:>7.1} MiB, ready after {:.2} s",
            kind.name(),
            memory as f64 / f64::from(1 << 20),
            ready.as_secs_f64()
        );
        servers.push(serde_json::json!({
            "server": kind, "bytes": memory, "ready_seconds": ready.as_secs_f64(),
        }));
    }
    println!();
    let reloads = reloads(&mut running, &world, &effort)?;
    println!("{}", table::reloads(&reloads));
    let geodns = running.remove(&Kind::Geodns).context("geodns does not run")?;
    drop(running);
    let many = bench(MANY_NAMES, NETWORKS);
    let large_dir = scratch.path().join("many");
    let large = start(Kind::Geodns, &many, &large_dir, &programs, server_core)?;
    println!(
        "with {MANY_NAMES} names: {:.1} MiB, ready after {:.2} s",
        large.server.memory() as f64 / f64::from(1 << 20),
        large.server.ready_after.as_secs_f64()
    );
    let growth = growth(&geodns, &large, &effort)?;
    println!("{}", table::growth(&growth));

    let measured = Measured { rows: &rows, growth: &growth, reloads: &reloads, quick: cli.quick };
    let goals = measured.goals();
    println!("{}", table::goals(&goals));
    let json = serde_json::json!({
        "benchmark": "dns", "quick": cli.quick, "names": NAMES, "networks": world.networks.len(),
        "rows": rows, "rounds": rounds, "servers": servers, "growth": growth, "reloads": reloads, "goals": goals,
    });
    let file = out.join("dns.json");
    std::fs::write(&file, format!("{json:#}\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let plot = out.join("dns.svg");
    table::plot(&rows, &plot)?;
    println!("written: {} and {}", file.display(), plot.display());
    report_wrong(&rows);
    let below: Vec<String> = goals
        .iter()
        .filter(|goal| !goal.met)
        .map(|goal| format!("{} is {:.3}, not {}", goal.text, goal.measured, goal.limit))
        .collect();
    if below.is_empty() {
        println!("ok");
    } else {
        println!("below goal: {}", below.join("; "));
    }
    Ok(below.is_empty())
}

/// A peer that answers wrongly has not done the same work: its figures say nothing.
fn report_wrong(rows: &[Row]) {
    for row in rows.iter().filter(|row| row.wrong > 0) {
        println!(
            "{} answered {} queries of {} wrongly",
            row.server.name(),
            row.wrong,
            row.case.name()
        );
    }
}

/// The plain queries, for whoever wants to repeat them with dnsperf.
fn write_queries(out: &Path) -> anyhow::Result<()> {
    for case in Case::ALL {
        if let Some(text) = case.as_dnsperf(NAMES) {
            let file = out.join(format!("dns-{}.txt", case.name()));
            std::fs::write(&file, text)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}

fn kinds(no_peers: bool) -> anyhow::Result<Vec<Kind>> {
    let mut kinds: Vec<Kind> = Case::ALL.iter().flat_map(|case| case.servers()).copied().collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.retain(|kind| !no_peers || matches!(kind, Kind::Geodns | Kind::Echo));
    let missing: Vec<String> = kinds
        .iter()
        .filter_map(|kind| kind.needs())
        .filter(|(program, _)| find(program).is_none())
        .map(|(program, package)| format!("{program} (Debian's package {package})"))
        .collect();
    anyhow::ensure!(
        missing.is_empty(),
        "not installed: {}; or run it with --no-peers",
        missing.join(", ")
    );
    Ok(kinds)
}

fn start(
    kind: Kind,
    world: &World,
    dir: &Path,
    programs: &Path,
    core: usize,
) -> anyhow::Result<Running> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let admin = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let program = kind.prepare(world, &Place { dir, address, admin, programs })?;
    let started = Instant::now();
    let mut server = Server::start(kind.name(), core, &program, &dir.join("log"))?;
    ready::wait(&mut server, started, address, APEX, LOAD_TIME)?;
    Ok(Running { server, address, admin, dir: dir.to_owned() })
}

/// All servers under all loads, round by round.
fn measure(running: &BTreeMap<Kind, Running>, effort: &Effort) -> anyhow::Result<Vec<Round>> {
    let asks: BTreeMap<Case, Vec<Ask>> =
        Case::ALL.into_iter().map(|case| (case, case.asks(NAMES))).collect();
    let runs = Case::ALL
        .iter()
        .flat_map(|case| case.servers())
        .filter(|kind| running.contains_key(kind))
        .count();
    let bar = ProgressBar::new(runs as u64 * u64::from(effort.rounds));
    bar.set_style(ProgressStyle::with_template("{msg:28} {bar:40} {percent:>3} % {eta:>5} left")?);
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        for (case, asks) in &asks {
            for kind in case.servers() {
                let Some(running) = running.get(kind) else { continue };
                bar.set_message(format!("{}: {}", case.name(), kind.name()));
                rounds.push(round(*case, *kind, running, asks, effort)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(rounds)
}

fn round(
    case: Case,
    kind: Kind,
    running: &Running,
    asks: &[Ask],
    effort: &Effort,
) -> anyhow::Result<Round> {
    // An echo answers nothing: only that it comes back counts.
    let asks: Vec<Ask> = match kind {
        Kind::Echo => asks.iter().map(|ask| Ask { expected: echoed(ask), ..ask.clone() }).collect(),
        _ => asks.to_vec(),
    };
    run(case, running.address, &asks, effort.warm_up)?;
    let before = running.server.cpu();
    let seen = run(case, running.address, &asks, effort.round)
        .with_context(|| format!("{}: {}", case.name(), kind.name()))?;
    let cpu = running.server.cpu().since(before);
    if let Some((query, answer)) = &seen.first_wrong {
        let (name, case) = (kind.name(), case.name());
        println!("{name} on {case}: {query:02x?}\n  was answered {answer:02x?}");
    }
    anyhow::ensure!(
        seen.answered > 0,
        "{} answers nothing of {}:\n{}",
        kind.name(),
        case.name(),
        running.server.last_lines()
    );
    let each = |seconds: f64| seconds * 1e6 / seen.answered as f64;
    Ok(Round {
        case,
        server: kind,
        answered: seen.answered,
        wrong: seen.wrong,
        lost: seen.lost,
        kqps: seen.rate() / 1e3,
        user: each(cpu.user),
        system: each(cpu.system),
        user_seconds: cpu.user,
        system_seconds: cpu.system,
        p50: seen.latencies.quantile(0.5),
        p999: seen.latencies.quantile(0.999),
    })
}

const fn echoed(ask: &Ask) -> benches::dns::message::Expected {
    benches::dns::message::Expected { rcode: 0, answers: 0, edns: ask.expected.edns }
}

fn run(case: Case, address: SocketAddrV4, asks: &[Ask], time: Duration) -> anyhow::Result<Seen> {
    match case {
        Case::Tcp => stream::run(address, asks, time),
        _ => Load::new()?.run(address, asks, &sources(), time, &AtomicBool::new(false)),
    }
}

/// Full load with and without a reload every second.
fn reloads(
    running: &mut BTreeMap<Kind, Running>,
    world: &World,
    effort: &Effort,
) -> anyhow::Result<Vec<Reloads>> {
    let mut all = Vec::new();
    let mut asks = Case::Static.asks(NAMES);
    asks.extend(Case::EcsRandom.asks(NAMES));
    let sources = sources();
    for kind in [Kind::Geodns, Kind::Gdnsd] {
        let Some(running) = running.get(&kind) else { continue };
        let mut load = Load::new()?;
        let over = AtomicBool::new(false);
        let before = load.run(running.address, &asks, &sources, effort.reloads, &over)?;
        let (seen, (reloads, each)) = std::thread::scope(|scope| {
            let reloader = scope.spawn(|| {
                let (mut done, mut took) = (0, Duration::ZERO);
                while !over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let next = start + Duration::from_secs(1);
                    reload(kind, running, world, done)?;
                    took += start.elapsed();
                    done += 1;
                    while Instant::now() < next && !over.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                anyhow::Ok((done, took.as_secs_f64() / done.max(1) as f64))
            });
            let never = AtomicBool::new(false);
            let seen = load.run(running.address, &asks, &sources, effort.reloads, &never);
            over.store(true, Ordering::Relaxed);
            let done = reloader.join().map_err(|_| anyhow::anyhow!("the reloader panicked"))?;
            anyhow::Ok((seen?, done?))
        })?;
        all.push(Reloads {
            server: kind,
            reloads,
            each,
            answered: seen.answered,
            wrong: seen.wrong,
            lost: seen.lost,
            p50_before: before.latencies.quantile(0.5),
            p50: seen.latencies.quantile(0.5),
            p999_before: before.latencies.quantile(0.999),
            p999: seen.latencies.quantile(0.999),
            longest: seen.latencies.longest(),
        });
    }
    Ok(all)
}

/// Changes the zone and has it loaded. geodns reads everything else anew, too: configuration and map.
fn reload(kind: Kind, running: &Running, world: &World, number: u64) -> anyhow::Result<()> {
    let zone = world.zones.first().context("no zone")?;
    let added = format!("added{number} A 192.0.2.200\n");
    match kind {
        Kind::Geodns => {
            let file = running.dir.join(format!("{APEX}.zone"));
            std::fs::write(file, format!("{}{added}", zone.records))?;
            let mut stream = TcpStream::connect(running.admin)?;
            let request = format!(
                "POST /v1/reload HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                running.admin
            );
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "reload: {answer}");
        }
        _ => {
            let steered = zone.steered.iter().map(|owner| format!("{owner} 60 DYNA geoip!web\n"));
            let text = format!("{}{added}{}", zone.records, steered.collect::<String>());
            std::fs::write(running.dir.join("zones").join(APEX), text)?;
            let output = std::process::Command::new("gdnsdctl")
                .args(["-c", &running.dir.display().to_string(), "reload-zones"])
                .output()?;
            anyhow::ensure!(output.status.success(), "gdnsdctl reload-zones: {output:?}");
        }
    }
    Ok(())
}

/// The same queries to a server with few names and to one with many.
fn growth(few: &Running, many: &Running, effort: &Effort) -> anyhow::Result<Vec<Growth>> {
    let mut all = Vec::new();
    for case in [Case::Static, Case::Nx] {
        let (same, every) = (case.asks(NAMES), case.asks(MANY_NAMES));
        // User seconds and answers of few, many, and all of many.
        let mut sums = [(0.0, 0.0); 3];
        for _ in 0..effort.rounds {
            for ((running, asks), (seconds, answers)) in
                [(few, &same), (many, &same), (many, &every)].into_iter().zip(&mut sums)
            {
                let round = round(case, Kind::Geodns, running, asks, effort)?;
                *seconds += round.user_seconds;
                *answers += round.answered as f64;
            }
        }
        // Time that no sample met is counted as one.
        let seconds = sums.map(|(seconds, _)| f64::max(seconds, 1.0 / SAMPLES_A_SECOND));
        let each = |at: usize| seconds[at] * 1e6 / f64::max(sums[at].1, 1.0);
        all.push(Growth {
            case,
            few: each(0),
            seconds: [seconds[0], seconds[1]],
            many: each(1),
            all: each(2),
            few_names: NAMES,
            many_names: MANY_NAMES,
        });
    }
    Ok(all)
}
