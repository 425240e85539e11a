//! geodns against other servers: the same random queries to both, and nothing may differ but what is known to.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test of running servers starts them, goes by the clock and prints"
)]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use benches::compare::answer::{Answer, Came, differing};
use benches::compare::ask::{Client, Way};
use benches::compare::known::{KNOWN, Peer, explain};
use benches::compare::random::{Asked, Kind as Queries};
use benches::compare::{resolver, worlds};
use benches::dns::peers::{Kind, Place};
use benches::dns::ready;
use benches::dns::world::World;
use benches::process::{Server, free_port};
use clap::{Parser, Subcommand};

/// geodns against other servers: the same random queries to both.
///
/// Response code, flags, sections, client subnet and scope must be the same but for the differences known by name.
/// Exit code 1: something else differs.
#[derive(Debug, Parser)]
#[command(name = "dns_differential")]
struct Cli {
    #[command(subcommand)]
    with: With,
    /// How many queries.
    #[arg(long, global = true, default_value_t = 100_000)]
    queries: u64,
    /// What the queries and the map are drawn from.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Only this query, printed with both answers.
    #[arg(long, global = true)]
    only: Option<u64>,
    /// The folder of the built `geodns`.
    #[arg(long, global = true, default_value = "target/release")]
    programs: PathBuf,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum With {
    /// Another authoritative server on the same zones.
    Peer {
        /// Which.
        peer: Peer,
        /// Datacenters without IPv6: steered names have no AAAA records.
        #[arg(long)]
        v4_only: bool,
    },
    /// unbound with its subnet cache in front of geodns: what clients get through it, they get directly.
    Unbound,
}

/// Differences that are printed in full.
const SHOWN: u64 = 5;
const START_TIME: Duration = Duration::from_secs(120);

struct Running {
    server: Server,
    address: SocketAddrV4,
    admin: SocketAddrV4,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    println!("seed {}, {} queries", cli.seed, cli.queries);
    let scratch = tempfile::tempdir()?;
    let good = match cli.with {
        With::Peer { peer, v4_only } => compare(&cli, peer, v4_only, scratch.path())?,
        With::Unbound => through_resolver(&cli, scratch.path())?,
    };
    println!("{}", if good { "ok" } else { "differs" });
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(kind: Kind, world: &World, scratch: &Path, programs: &Path) -> anyhow::Result<Running> {
    let dir = scratch.join(kind.name());
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let admin = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let place = Place { dir: &dir, address, admin, programs: &std::path::absolute(programs)? };
    let program = kind.prepare(world, &place)?;
    run(kind.name(), &program, &dir, address, admin)
}

fn run(
    name: &str,
    program: &[String],
    dir: &Path,
    address: SocketAddrV4,
    admin: SocketAddrV4,
) -> anyhow::Result<Running> {
    let started = Instant::now();
    let mut server = Server::start(name, 0, program, &dir.join("log"))?;
    ready::wait(&mut server, started, address, worlds::APEX, START_TIME)?;
    Ok(Running { server, address, admin })
}

fn compare(cli: &Cli, peer: Peer, v4_only: bool, scratch: &Path) -> anyhow::Result<bool> {
    let (world, queries, kind) = match peer {
        Peer::Gdnsd if v4_only => (worlds::steered_v4(cli.seed), Queries::Steered, Kind::Gdnsd),
        Peer::Gdnsd => (worlds::steered(cli.seed), Queries::Steered, Kind::Gdnsd),
        Peer::Knot => (worlds::static_only(), Queries::Static, Kind::Knot),
        Peer::Nsd => (worlds::static_only(), Queries::Static, Kind::Nsd),
    };
    let ours = start(Kind::Geodns, &world, scratch, &cli.programs)?;
    let theirs = start(kind, &world, scratch, &cli.programs)?;
    let mut client = Client::default();
    let mut explained: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut same, mut unexplained) = (0u64, 0u64);
    let numbers = match cli.only {
        Some(number) => number..number + 1,
        None => 0..cli.queries,
    };
    for number in numbers {
        let asked = queries.query(cli.seed, number, &world);
        let mut come = |server: &Running| -> anyhow::Result<Came> {
            let bytes = client.ask(server.address, asked.way, &asked.message)?;
            Ok(Came::read(bytes.as_deref(), &asked.message))
        };
        let (our, their) = (come(&ours)?, come(&theirs)?);
        let parts = differing(&our, &their);
        if parts.is_empty() {
            same += 1;
            if cli.only.is_none() {
                continue;
            }
        }
        let (known, rest) = match explain(peer, &asked, our.answer(), their.answer(), &parts) {
            Ok(names) => (names, Vec::new()),
            Err(rest) => (Vec::new(), rest),
        };
        for name in known {
            *explained.entry(name).or_default() += 1;
        }
        unexplained += u64::from(!rest.is_empty());
        if cli.only.is_some() || !rest.is_empty() && unexplained <= SHOWN {
            show(peer, number, &asked, &our, &their);
            println!("  unexplained: {rest:?}\n");
        }
    }
    println!("{same} the same, {unexplained} differ without a known reason; known differences:");
    for known in KNOWN {
        if let Some(count) = explained.get(known.name) {
            println!("{count:>8}  {}: {}", known.name, known.why);
        }
    }
    alive(&ours)?;
    Ok(unexplained == 0)
}

fn show(peer: Peer, number: u64, asked: &Asked, ours: &Came, theirs: &Came) {
    let name = format!("{peer:?}").to_lowercase();
    println!(
        "query {number}: {} type {} {:?}, size {}, {:?}",
        asked.name, asked.qtype, asked.subnet, asked.size, asked.way
    );
    let hex: String = asked.message.iter().map(|octet| format!("{octet:02x}")).collect();
    println!("  bytes  {hex}");
    println!("  geodns {ours:?}");
    println!("  {name} {theirs:?}");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("  again: dns_differential {} --only {number}", arguments.join(" "));
}

/// A server that died answers nothing more; that is told apart from silence.
fn alive(running: &Running) -> anyhow::Result<()> {
    let mut client = Client::default();
    let query = benches::dns::message::Query::new(worlds::APEX, 6).message(1);
    let answer = client.ask(running.address, Way::Udp(Ipv4Addr::LOCALHOST), &query)?;
    anyhow::ensure!(answer.is_some(), "geodns is gone:\n{}", running.server.last_lines());
    Ok(())
}

fn through_resolver(cli: &Cli, scratch: &Path) -> anyhow::Result<bool> {
    let world = worlds::coarse(cli.seed);
    let geodns = start(Kind::Geodns, &world, scratch, &cli.programs)?;
    let dir = scratch.join("unbound");
    std::fs::create_dir_all(&dir)?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let program = resolver::unbound(&dir, address, geodns.address)?;
    let unbound = run("unbound", &program, &dir, address, address)?;
    let mut client = Client::default();
    let way = Way::Udp(Ipv4Addr::LOCALHOST);
    let mut direct = Vec::new();
    for number in 0..cli.queries {
        let asked = Queries::Clients.query(cli.seed, number, &world);
        let bytes = client.ask(geodns.address, way, &asked.message)?;
        let mut came = Came::read(bytes.as_deref(), &asked.message);
        // An alias of a steered name is all that there is in its answer; a resolver goes on by itself.
        let target = match asked.name.split('.').next() {
            Some("togeo") => Some(format!("www.{}", worlds::APEX)),
            Some("togeo2") => Some(format!("x.geo.{}", worlds::APEX)),
            _ => None,
        };
        if let (Some(target), Came::Answer(answer)) = (target, &mut came) {
            let next = asked.about(&target);
            let bytes = client.ask(geodns.address, way, &next.message)?;
            let came = Came::read(bytes.as_deref(), &next.message);
            let more = came.answer().context("no answer for an alias's target")?;
            answer.answers.extend(more.answers.iter().cloned());
            answer.subnet = more.subnet;
        }
        direct.push((asked, came));
    }
    let before = queries_total(geodns.admin)?;
    let (mut compared, mut steered, mut wrong) = (0u64, 0u64, 0u64);
    for (number, (asked, direct)) in (0u64..).zip(&direct) {
        let Some(direct) = direct.answer() else {
            anyhow::bail!("geodns gives no answer to query {number}: {asked:?}")
        };
        if !is_complete(asked) {
            continue;
        }
        let mut message = asked.message.clone();
        // A resolver recurses only for those who ask for it.
        message[2] |= 1;
        let bytes = client.ask(unbound.address, way, &message)?;
        let through = Came::read(bytes.as_deref(), &message);
        compared += 1;
        steered += u64::from(direct.subnet.is_some_and(|(_, _, scope)| scope > 0));
        let same = through.answer().is_some_and(|through| {
            through.rcode == direct.rcode && without_ttl(through) == without_ttl(direct)
        });
        if !same {
            wrong += 1;
            if wrong <= SHOWN {
                println!("client {number}: {} type {} {:?}", asked.name, asked.qtype, asked.subnet);
                println!("  direct  {direct:?}\n  through {through:?}");
            }
        }
    }
    let forwarded = queries_total(geodns.admin)? - before;
    let cached = compared.saturating_sub(forwarded);
    println!(
        "{compared} clients through unbound, {steered} of them with answers for their network only: {wrong} got another answer than \
         directly; unbound asked geodns {forwarded} times and answered {cached} from its cache"
    );
    alive(&geodns)?;
    // A cache that is never used proves nothing.
    let used = cached * 4 > compared && steered * 4 > compared;
    if !used {
        println!("the cache was hardly used");
    }
    Ok(wrong == 0 && used)
}

/// Whether a resolver that knows only our zones can give this answer.
fn is_complete(asked: &Asked) -> bool {
    let ours = [worlds::APEX, worlds::OTHER]
        .iter()
        .any(|apex| asked.name == *apex || asked.name.ends_with(&format!(".{apex}")));
    let leads_out = ["toext", "sub", "ext", "tocut", "deepcut"];
    ours && !leads_out.iter().any(|label| asked.name.split('.').any(|part| part == *label))
}

fn without_ttl(answer: &Answer) -> Vec<String> {
    let without = |record: &String| {
        let words: Vec<&str> = record.split(' ').collect();
        let rest = words.iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, word)| *word);
        rest.collect::<Vec<_>>().join(" ")
    };
    answer.answers.iter().map(without).collect()
}

/// How many queries geodns has been asked.
fn queries_total(admin: SocketAddrV4) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(admin)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let counts = text
        .lines()
        .filter(|line| line.starts_with("geodns_queries_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    let total: f64 = counts.sum();
    anyhow::ensure!(total > 0.0, "no counters: {}", text.lines().next().unwrap_or_default());
    Ok(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["x", "peer", "gdnsd", "--seed", "7", "--only", "3"]);
        assert!(matches!(cli.with, With::Peer { peer: Peer::Gdnsd, v4_only: false }));
        assert_eq!((cli.seed, cli.only), (7, Some(3)));
    }
}
