//! What names and client networks take in `geodns`: octets of memory each, the time to load them, and what one answer
//! costs among few names and among many.
//!
//! `dns_memory --names 1000000 --networks 4500000`. Each number is measured in a process of its own, which this one
//! starts, so that resident memory is theirs alone.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads its own memory and clock, and prints"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use geodns::answer::{Client, Context, Outcome, Server, Transport, answer};
use geodns::config;
use geodns::name::Name;
use geodns::snapshot::{Snapshot, Tables};
use geodns::wire::write_query;
use geodns::world::World;
use geodns::zone::{Builder, Location, Zones, file};
use shared::geo::mmdb_writer::{CityRecord, Writer};
use shared::geo::{self, Database};
use shared::prefix::Prefix;
use shared::time::UnixMillis;

#[derive(Parser)]
#[command(about = "Memory per name and per network, load times, and the cost of answers")]
struct Args {
    /// Static names, with an A record each
    #[arg(long, default_value_t = 1_000_000)]
    names: u32,
    /// Networks of a City-size database
    #[arg(long, default_value_t = 4_500_000)]
    networks: u32,
    /// Measure one of them in this process
    #[arg(long, value_name = "names|networks", hide = true)]
    only: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.only.as_deref() {
        Some("names") => names(args.names),
        Some("networks") => networks(args.networks),
        Some(other) => bail!("`{other}` is neither `names` nor `networks`"),
        None => {
            for only in ["names", "networks"] {
                let status = Command::new(std::env::current_exe()?)
                    .args(["--only", only])
                    .args(["--names", &args.names.to_string()])
                    .args(["--networks", &args.networks.to_string()])
                    .status()?;
                if !status.success() {
                    bail!("measuring {only} failed: {status}");
                }
            }
            Ok(())
        }
    }
}

fn names(count: u32) -> anyhow::Result<()> {
    // Few names first: what a process takes anyway is there then.
    let few = zone(1000)?.zones;
    let before = memory("VmRSS")?;
    let loaded = zone(count)?;
    let after = memory("VmRSS")?;
    let held = u64::from(count);
    println!(
        "{count} names, {} octets of zone file: {:.0} octets a name ({:.0} resident), {:.0} at the peak of a load; \
         read {:.2} s, built {:.2} s",
        loaded.text,
        loaded.zones.memory() as f64 / held as f64,
        after.saturating_sub(before) as f64 / held as f64,
        memory("VmHWM")?.saturating_sub(before) as f64 / held as f64,
        loaded.read_secs,
        loaded.build_secs,
    );
    let many = snapshot(loaded.zones);
    let few = snapshot(few);
    for (what, suffix) in [("that exist", ""), ("that do not", "x")] {
        // The same names of both, so that their lookups differ in the table's size alone; then spread over all.
        let same = 1000.min(count);
        println!(
            "answers for names {what}: {:.0} ns among 1000, {:.0} ns among {count} for the same, {:.0} ns spread over all",
            cost(&few, same, suffix)?,
            cost(&many, same, suffix)?,
            cost(&many, count, suffix)?,
        );
    }
    Ok(())
}

struct Loaded {
    zones: Zones,
    text: usize,
    read_secs: f64,
    build_secs: f64,
}

fn owner(number: u32) -> String {
    // In no order that would help.
    format!("h{:07}", number.wrapping_mul(7_368_787) % 10_000_000)
}

fn zone(count: u32) -> anyhow::Result<Loaded> {
    let apex = Name::parse_absolute("cdn.test").map_err(anyhow::Error::msg)?;
    let mut text = "$TTL 300\n@ SOA ns1 host 1 1h 10m 2w 60\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.1\nns2 A 192.0.2.2\n".to_owned();
    for number in 0..count {
        writeln!(text, "{} A {}", owner(number), Ipv4Addr::from(0x0a00_0000 + number))?;
    }
    let length = text.len();
    let text = std::cell::Cell::new(Some(text.into_bytes()));
    let begun = Instant::now();
    let (records, problems) =
        file::read(Path::new("bench"), &apex, &|_| text.take().ok_or_else(|| "twice".to_owned()));
    let read_secs = begun.elapsed().as_secs_f64();
    if let Some(problem) = problems.first() {
        bail!("{problem}");
    }
    let begun = Instant::now();
    let mut builder = Builder::default();
    builder.add(&apex, records, &[], Location { file: "bench".into(), line: 0 });
    let (zones, problems) = builder.build();
    if let Some(problem) = problems.first() {
        bail!("{problem}");
    }
    Ok(Loaded { zones, text: length, read_secs, build_secs: begun.elapsed().as_secs_f64() })
}

fn snapshot(zones: Zones) -> Snapshot {
    let tables = Tables::new(World::default(), zones, geo::World::new([], &[]));
    Snapshot::presumed_up(tables)
}

/// Nanoseconds of an answer, queries for the first `names` names in turn.
fn cost(snapshot: &Snapshot, names: u32, suffix: &str) -> anyhow::Result<f64> {
    const QUERIES: u32 = 200_000;
    let mut packets = Vec::new();
    for number in 0..QUERIES {
        let number = number.wrapping_mul(2_654_435_761) % names;
        let name = format!("{}{suffix}.cdn.test", owner(number));
        let name = Name::parse_absolute(&name).map_err(anyhow::Error::msg)?;
        packets.push(write_query(1, &name, 1, None));
    }
    let client = Client { address: "192.0.2.9:53".parse()?, transport: Transport::Udp, draw: 0 };
    let server = Server::default();
    let context = Context { server: &server, now: UnixMillis(0) };
    let mut out = vec![0; 1232];
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        for packet in &packets {
            let outcome = answer(black_box(packet), &client, &context, snapshot, &mut out);
            if !matches!(black_box(&outcome), Outcome::Respond { .. }) {
                bail!("no answer");
            }
        }
        best = best.min(begun.elapsed().as_secs_f64());
    }
    Ok(best * 1e9 / f64::from(QUERIES))
}

/// A configuration with four datacenters and one policy.
const CONFIG: &str = r#"
[datacenter.icn]
location = [37.46, 126.44]
[datacenter.fra]
location = [50.03, 8.57]
[datacenter.iad]
location = [38.95, -77.45]
[datacenter.gru]
location = [-23.43, -46.47]
[steering.web]
order = "nearest"
"#;

struct Memory;

impl shared::config::Files for Memory {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(CONFIG.as_bytes().to_vec())
    }
    fn glob(&self, _: &str) -> Result<Vec<std::path::PathBuf>, String> {
        Ok(Vec::new())
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

fn networks(count: u32) -> anyhow::Result<()> {
    let bytes = database(count)?;
    let size = bytes.len();
    let before = memory("VmRSS")?;
    let begun = Instant::now();
    let database =
        Database::from_bytes(bytes, "bench").map_err(|error| anyhow::anyhow!("{error}"))?;
    let geography = geo::World::new([], &[database]);
    let read_secs = begun.elapsed().as_secs_f64();
    let loaded = shared::config::load(Path::new("bench.toml"), &Memory);
    let loaded =
        loaded.map_err(|problems| anyhow::anyhow!("{}", shared::config::listing(&problems)))?;
    let world = config::world(&loaded);
    let world =
        world.map_err(|problems| anyhow::anyhow!("{}", shared::config::listing(&problems)))?;
    let begun = Instant::now();
    let tables = Tables::new(world, Zones::default(), geography);
    let compile_secs = begun.elapsed().as_secs_f64();
    let resident = memory("VmRSS")?.saturating_sub(before);
    let (_, map) = tables.policy(0).context("a policy")?;
    let (ranges, lists) = map.size();
    let held = f64::from(count);
    println!(
        "{count} networks, a database of {size} octets: {:.0} octets a network resident beside the file, of them {:.1} \
         in the policy's table ({ranges} ranges, {lists} lists); read {read_secs:.2} s, compiled {compile_secs:.2} s",
        resident as f64 / held,
        map.memory() as f64 / held,
    );
    Ok(())
}

/// Four of five networks are IPv4 /24s, the others IPv6 /48s; neighbours differ in their place, of which there are as
/// many as a City database has.
fn database(count: u32) -> anyhow::Result<Vec<u8>> {
    const PLACES: u32 = 100_000;
    const COUNTRIES: [&str; 8] = ["KR", "DE", "US", "BR", "JP", "FR", "ZA", "AU"];
    let mut writer = Writer::new("GeoLite2-City");
    for number in 0..count {
        let network = if number % 5 < 4 {
            IpAddr::V4(Ipv4Addr::from(0x0100_0000 + ((number / 5 * 4 + number % 5) << 8)))
        } else {
            IpAddr::V6(Ipv6Addr::from((0x2400_0000_0000 + u128::from(number)) << 80))
        };
        let bits = if network.is_ipv4() { 24 } else { 48 };
        let place = number.wrapping_mul(2_654_435_761) % PLACES;
        let city = format!("city {place}");
        let country = COUNTRIES.get(place as usize % COUNTRIES.len()).context("a country")?;
        let point = (f64::from(place % 1300) / 10.0 - 60.0, f64::from(place % 3500) / 10.0 - 175.0);
        let record = CityRecord {
            country,
            subdivisions: &[],
            city: &city,
            geoname_id: Some(place + 1),
            location: Some(point),
        };
        writer.city(Prefix::containing(network, bits), &record);
    }
    writer.finish().map_err(|error| anyhow::anyhow!("{error:?}"))
}

/// Octets that `/proc/self/status` says.
fn memory(field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("another /proc")?;
    Ok(kib.parse::<u64>()? * 1024)
}
