//! Each server's configuration of the same [`World`]: one worker, no logging, everything in a folder of its own.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::world::{STEERED_TTL, World, Zone};

/// A server, in the form in which it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Ours: cookies, rate limiting, counters and address-preserving receive on.
    Geodns,
    /// The floor: [`super::echo`].
    Echo,
    /// gdnsd with its plugin geoip.
    Gdnsd,
    /// Knot with static zones.
    Knot,
    /// Knot with mod-geoip.
    KnotGeo,
    /// NSD.
    Nsd,
    /// BIND.
    Bind,
    /// PowerDNS with the backend geoip.
    Pdns,
    /// The library that our tests decode with, as a server: [`super::hickory`].
    Hickory,
}

/// Where a server is to listen and to keep its files.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Its folder, absolute.
    pub dir: &'a Path,
    /// Its address.
    pub address: SocketAddrV4,
    /// Another port, for what it needs one for.
    pub admin: SocketAddrV4,
    /// Folder of our own programs.
    pub programs: &'a Path,
}

impl Kind {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Geodns => "geodns",
            Self::Echo => "bare echo",
            Self::Gdnsd => "gdnsd",
            Self::Knot => "Knot",
            Self::KnotGeo => "Knot geoip",
            Self::Nsd => "NSD",
            Self::Bind => "BIND",
            Self::Pdns => "PowerDNS",
            Self::Hickory => "hickory-server",
        }
    }

    /// The program of a peer and Debian's package of it.
    pub const fn needs(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Geodns | Self::Echo | Self::Hickory => None,
            Self::Gdnsd => Some(("gdnsd", "gdnsd")),
            Self::Knot => Some(("knotd", "knot")),
            Self::KnotGeo => Some(("knotd", "knot-module-geoip")),
            Self::Nsd => Some(("nsd", "nsd")),
            Self::Bind => Some(("named", "bind9")),
            Self::Pdns => Some(("pdns_server", "pdns-backend-geoip")),
        }
    }

    /// Writes its files and gives the command that runs it in the foreground.
    pub fn prepare(self, world: &World, place: &Place<'_>) -> anyhow::Result<Vec<String>> {
        make_dir(place.dir)?;
        let dir = place.dir.display();
        let command = match self {
            Self::Geodns => {
                geodns(world, place)?;
                let program = place.programs.join("geodns");
                format!("{} serve --config {dir}/meridian.toml --node ns1", program.display())
            }
            Self::Echo => {
                let program = std::env::current_exe().context("where is this program?")?;
                format!("{} echo {}", program.display(), place.address)
            }
            Self::Hickory => {
                write_static_zones(world, place.dir)?;
                let program = std::env::current_exe().context("where is this program?")?;
                let zones: Vec<&str> = world.zones.iter().map(|zone| zone.apex.as_str()).collect();
                format!("{} hickory {} {dir} {}", program.display(), place.address, zones.join(" "))
            }
            Self::Gdnsd => {
                gdnsd(world, place)?;
                format!("{} -c {dir} start", sbin("gdnsd"))
            }
            Self::Knot | Self::KnotGeo => {
                knot(self, world, place)?;
                format!("{} -c {dir}/knot.conf", sbin("knotd"))
            }
            Self::Nsd => {
                nsd(world, place)?;
                format!("{} -d -c {dir}/nsd.conf", sbin("nsd"))
            }
            Self::Bind => {
                bind(world, place)?;
                // -U: one listener, as there is one worker.
                format!("{} -g -n 1 -U 1 -c {dir}/named.conf", sbin("named"))
            }
            Self::Pdns => {
                pdns(world, place)?;
                format!("{} --config-dir={dir}", sbin("pdns_server"))
            }
        };
        Ok(command.split(' ').map(str::to_owned).collect())
    }
}

/// The path of a daemon: people's `PATH` often lacks the folders of daemons.
fn sbin(program: &str) -> String {
    find(program).map_or_else(|| program.to_owned(), |path| path.display().to_string())
}

/// Where a program is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark writes configurations")]
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// The zone with the first datacenter's addresses at the steered names, for servers that steer otherwise or not at all.
fn static_zone(world: &World, zone: &Zone) -> String {
    let mut text = zone.records.clone();
    if let Some(first) = world.datacenters.first() {
        for owner in &zone.steered {
            let _ = writeln!(text, "{owner} {STEERED_TTL} A {}", first.v4);
            if let Some(v6) = first.v6 {
                let _ = writeln!(text, "{owner} {STEERED_TTL} AAAA {v6}");
            }
        }
    }
    text
}

fn write_static_zones(world: &World, dir: &Path) -> anyhow::Result<()> {
    for zone in &world.zones {
        write(&dir.join(format!("{}.zone", zone.apex)), &static_zone(world, zone))?;
    }
    Ok(())
}

fn geodns(world: &World, place: &Place<'_>) -> anyhow::Result<()> {
    // A wildcard address: answers must leave from the address that was asked, which costs something.
    let (port, admin) = (place.address.port(), place.admin);
    let mut text = format!(
        "[cluster]\nname = \"bench\"\n\n[nameserver.ns1]\nlisten = [\"0.0.0.0:{port}\"]\nadmin = \"{admin}\"\n\
         workers = 1\ntcp_connections = 10000\ntcp_connections_per_client = 10000\ntcp_idle = \"60s\"\n\
         cookie_secret_file = \"cookie\"\n\
         # On for every client, and never reached.\n\
         rate_limit = {{ responses = 1000000, slip = 2 }}\n"
    );
    for (index, datacenter) in world.datacenters.iter().enumerate() {
        let name = datacenter.name;
        let v6 = datacenter.v6.map(|v6| format!(", \"{v6}\"")).unwrap_or_default();
        let _ = write!(
            text,
            "\n[datacenter.{name}]\nlocation = [{index}.0, {index}.0]\n\n[edge.{name}-1]\ndatacenter = \"{name}\"\n\
             address = [\"{}\"{v6}]\nhttp = [\"127.0.1.{index}:8080\"]\nadmin = \"127.0.1.{index}:9090\"\n",
            datacenter.v4
        );
    }
    let names: Vec<&str> = world.datacenters.iter().map(|datacenter| datacenter.name).collect();
    let _ = write!(
        text,
        "\n[steering.web]\ndatacenters = {names:?}\norder = \"listed\"\nanswers = 1\nttl = {{ max = \"{STEERED_TTL}s\", min = \"5s\" }}\n"
    );
    for zone in &world.zones {
        let steered = zone.steered.iter().map(|owner| format!("{owner:?} = \"web\""));
        let steered = steered.collect::<Vec<_>>().join(", ");
        let _ = write!(
            text,
            "\n[zone.\"{0}\"]\nfile = \"{0}.zone\"\nsteer = {{ {steered} }}\n",
            zone.apex
        );
        write(&place.dir.join(format!("{}.zone", zone.apex)), &zone.records)?;
    }
    text.push_str("\n[geo.networks]\n");
    for network in &world.networks {
        let to = names[network.datacenter];
        let _ = writeln!(text, "\"{}/{}\" = \"{to}\"", network.address, network.bits);
    }
    write(&place.dir.join("cookie"), "000102030405060708090a0b0c0d0e0f\n")?;
    write(&place.dir.join("meridian.toml"), &text)
}

fn gdnsd(world: &World, place: &Place<'_>) -> anyhow::Result<()> {
    let dir = place.dir;
    for folder in ["zones", "geoip", "run", "state"] {
        make_dir(&dir.join(folder))?;
    }
    let names: Vec<&str> = world.datacenters.iter().map(|datacenter| datacenter.name).collect();
    let mut dcmap = String::new();
    for datacenter in &world.datacenters {
        let v6 = datacenter.v6.map(|v6| format!(", addrs_v6 => [ {v6} ]")).unwrap_or_default();
        let (name, v4) = (datacenter.name, datacenter.v4);
        let _ = write!(dcmap, "{name} => {{ addrs_v4 => [ {v4} ]{v6} }}, ");
    }
    let config = format!(
        "options => {{\n listen => {}\n udp_threads = 1\n tcp_threads = 1\n run_dir = {dir}/run\n state_dir = {dir}/state\n}}\n\
         plugins => {{ geoip => {{\n\
         maps => {{ net => {{ datacenters => [{}], nets => networks }} }},\n\
         resources => {{ web => {{ map => net, service_types => up, dcmap => {{ {dcmap} }} }} }}\n\
         }} }}\n",
        place.address,
        names.join(", "),
        dir = dir.display(),
    );
    write(&dir.join("config"), &config)?;
    let mut networks = String::new();
    for network in &world.networks {
        let first = names[network.datacenter];
        let rest = names.iter().filter(|name| **name != first).copied().collect::<Vec<_>>();
        let _ = writeln!(
            networks,
            "{}/{} => [{first}, {}]",
            network.address,
            network.bits,
            rest.join(", ")
        );
    }
    write(&dir.join("geoip/networks"), &networks)?;
    for zone in &world.zones {
        let mut text = zone.records.clone();
        for owner in &zone.steered {
            let _ = writeln!(text, "{owner} {STEERED_TTL} DYNA geoip!web");
        }
        write(&dir.join("zones").join(&zone.apex), &text)?;
    }
    Ok(())
}

fn knot(kind: Kind, world: &World, place: &Place<'_>) -> anyhow::Result<()> {
    let dir = place.dir;
    write_static_zones(world, dir)?;
    let (module, of_zone) = match kind {
        Kind::KnotGeo => (
            format!(
                "mod-geoip:\n  - id: web\n    config-file: {}/geo.conf\n    ttl: {STEERED_TTL}\n    mode: subnet\n",
                dir.display()
            ),
            "    module: mod-geoip/web\n",
        ),
        _ => (String::new(), ""),
    };
    let mut text = format!(
        "server:\n    rundir: {dir}\n    listen: {}@{}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n    \
         tcp-max-clients: 1000\n    edns-client-subnet: on\n\
         database:\n    storage: {dir}/db\n\
         log:\n  - target: stderr\n    any: warning\n\
         {module}zone:\n",
        place.address.ip(),
        place.address.port(),
        dir = dir.display()
    );
    for zone in &world.zones {
        let _ = write!(
            text,
            "  - domain: {0}\n    file: {1}/{0}.zone\n    zonefile-sync: -1\n    zonefile-load: whole\n    journal-content: none\n{of_zone}",
            zone.apex,
            dir.display()
        );
    }
    write(&dir.join("knot.conf"), &text)?;
    if kind != Kind::KnotGeo {
        return Ok(());
    }
    let mut geo = String::new();
    for zone in &world.zones {
        for owner in &zone.steered {
            let _ = writeln!(geo, "{owner}.{}:", zone.apex);
            for network in &world.networks {
                let to = &world.datacenters[network.datacenter];
                let _ = writeln!(
                    geo,
                    "  - net: {}/{}\n    A: {}",
                    network.address, network.bits, to.v4
                );
                if let Some(v6) = to.v6 {
                    let _ = writeln!(geo, "    AAAA: {v6}");
                }
            }
        }
    }
    write(&dir.join("geo.conf"), &geo)
}

fn nsd(world: &World, place: &Place<'_>) -> anyhow::Result<()> {
    let dir = place.dir;
    write_static_zones(world, dir)?;
    let mut text = format!(
        "server:\n  server-count: 1\n  ip-address: {}@{}\n  username: \"\"\n  chroot: \"\"\n  zonesdir: {dir}\n  database: \"\"\n  \
         xfrdfile: {dir}/xfrd.state\n  xfrdir: {dir}\n  zonelistfile: {dir}/zone.list\n  pidfile: {dir}/nsd.pid\n  \
         tcp-count: 1000\n  minimal-responses: yes\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n\
         remote-control:\n  control-enable: no\n",
        place.address.ip(),
        place.address.port(),
        dir = dir.display()
    );
    for zone in &world.zones {
        let _ = write!(text, "zone:\n  name: {0}\n  zonefile: {0}.zone\n", zone.apex);
    }
    write(&dir.join("nsd.conf"), &text)
}

fn bind(world: &World, place: &Place<'_>) -> anyhow::Result<()> {
    let dir = place.dir;
    write_static_zones(world, dir)?;
    let mut text = format!(
        "options {{\n  directory \"{dir}\";\n  pid-file \"{dir}/named.pid\";\n  session-keyfile \"{dir}/session.key\";\n  \
         listen-on port {} {{ {}; }};\n  listen-on-v6 {{ none; }};\n  recursion no;\n  dnssec-validation no;\n  \
         minimal-responses yes;\n  allow-transfer {{ none; }};\n  tcp-clients 1000;\n  querylog no;\n  notify no;\n}};\ncontrols {{ }};\n",
        place.address.port(),
        place.address.ip(),
        dir = dir.display()
    );
    for zone in &world.zones {
        let _ = writeln!(
            text,
            "zone \"{0}\" {{ type primary; file \"{1}/{0}.zone\"; }};",
            zone.apex,
            dir.display()
        );
    }
    write(&dir.join("named.conf"), &text)
}

/// Only zones whose records are `OWNER A ADDRESS`, besides their head: the backend has a format of its own.
fn pdns(world: &World, place: &Place<'_>) -> anyhow::Result<()> {
    let dir = place.dir;
    let mut zones = String::from("domains:\n");
    for zone in &world.zones {
        let apex = &zone.apex;
        let _ = write!(
            zones,
            "- domain: {apex}\n  ttl: 300\n  records:\n    {apex}:\n      - soa: ns1.{apex} hostmaster.{apex} 1 3600 600 86400 60\n      \
             - ns: ns1.{apex}\n      - ns: ns2.{apex}\n"
        );
        for line in zone.records.lines().filter(|line| !line.starts_with(['$', '@'])) {
            let mut words = line.split(' ');
            let (Some(owner), Some("A"), Some(address)) =
                (words.next(), words.next(), words.next())
            else {
                anyhow::bail!("PowerDNS's geoip backend is given only addresses, not: {line}");
            };
            let _ = writeln!(zones, "    {owner}.{apex}:\n      - a: {address}");
        }
        for datacenter in &world.datacenters {
            let _ = writeln!(
                zones,
                "    {}.{apex}:\n      - a: {{content: {}, ttl: {STEERED_TTL}}}",
                datacenter.name, datacenter.v4
            );
            if let Some(v6) = datacenter.v6 {
                let _ = writeln!(zones, "      - aaaa: {{content: \"{v6}\", ttl: {STEERED_TTL}}}");
            }
        }
        zones.push_str("  services:\n");
        for owner in &zone.steered {
            let to = |index: usize| format!("{}.{apex}", world.datacenters[index].name);
            let _ = writeln!(zones, "    {owner}.{apex}:\n      default: [ {} ]", to(0));
            for network in &world.networks {
                let to = to(network.datacenter);
                let _ = writeln!(zones, "      {}/{}: [ {to} ]", network.address, network.bits);
            }
        }
    }
    write(&dir.join("zones.yaml"), &zones)?;
    let text = format!(
        "launch=geoip\ngeoip-zones-file={dir}/zones.yaml\ngeoip-database-files=\nlocal-address={}\nlocal-port={}\nsocket-dir={dir}\n\
         daemon=no\nguardian=no\ndisable-syslog=yes\nloglevel=3\nreceiver-threads=1\ndistributor-threads=1\n\
         edns-subnet-processing=yes\nsetuid=\nsetgid=\nversion-string=anonymous\nsecurity-poll-suffix=\nmax-tcp-connections=1000\n",
        place.address.ip(),
        place.address.port(),
        dir = dir.display()
    );
    write(&dir.join("pdns.conf"), &text)
}
