//! Names, places and nodes: what is common to DNS and HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Check, SECOND};
use crate::config::document::Step;
use crate::config::spec::*;
use crate::config::values::*;
use crate::prefix::Prefix;
use crate::size::format_size;

impl Check<'_> {
    /// Names go into logs, metrics, file names and `Cache-Status`, where they must be tokens.
    pub(super) fn names(&mut self) {
        let spec = self.spec;
        let tables: [(&str, Vec<&String>); 10] = [
            ("datacenter", spec.datacenter.keys().collect()),
            ("nameserver", spec.nameserver.keys().collect()),
            ("edge", spec.edge.keys().collect()),
            ("steering", spec.steering.keys().collect()),
            ("check", spec.check.keys().collect()),
            ("origin", spec.origin.keys().collect()),
            ("cache", spec.cache.keys().collect()),
            ("tier", spec.tier.keys().collect()),
            ("signing", spec.signing.keys().collect()),
            ("site", spec.site.keys().collect()),
        ];
        for (table, names) in tables {
            for name in names {
                let good = name.len() <= 63
                    && name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
                if !good {
                    self.error_at_key(
                        path![table, name],
                        format!("`{name}` cannot be a name: write a letter, then letters, digits, `-`, `_` or `.`, 63 at most"),
                    );
                }
            }
        }
        for name in spec.nameserver.keys().filter(|name| spec.edge.contains_key(*name)) {
            self.error_at_key(
                path!["nameserver", name],
                format!("a nameserver and an edge cannot both be called `{name}`"),
            );
        }
        let cluster = &spec.cluster.name;
        if cluster.is_empty()
            || !cluster.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            self.error(path!["cluster", "name"], "write letters, digits, `-`, `_` or `.`");
        }
        if let Control::Nats(_) = spec.cluster.control {
            self.warn(
                path!["cluster", "control"],
                "this version sends no messages between nodes yet: the server is not used",
            );
        }
    }

    pub(super) fn geo(&mut self) {
        let geo = &self.spec.geo;
        for (table, networks) in [("networks", &geo.networks), ("resolvers", &geo.resolvers)] {
            for (network, datacenter) in networks {
                let at = path!["geo", table, network];
                if let Err(error) = network.parse::<Prefix>() {
                    self.error_at_key(at.clone(), error.to_string());
                }
                self.refer(at, "datacenter", &self.spec.datacenter, datacenter);
            }
        }
        self.within(path!["geo", "max_moved"], geo.max_moved, 0.0, 1.0);
    }

    pub(super) fn log(&mut self) {
        self.within(path!["log", "sample"], self.spec.log.sample, 0.0, 1.0);
    }

    pub(super) fn datacenters(&mut self) {
        let spec = self.spec;
        for (name, datacenter) in &spec.datacenter {
            self.within(path!["datacenter", name, "bias"], datacenter.bias, -99, 99);
            if datacenter.capacity == Some(Rate(0)) {
                self.error(
                    path!["datacenter", name, "capacity"],
                    "it can send nothing: leave `capacity` out where it is not known",
                );
            }
            let answered =
                spec.edge.values().any(|edge| edge.datacenter == *name && !edge.address.is_empty());
            if !answered && !spec.steering.is_empty() {
                self.warn(
                    path!["datacenter", name],
                    format!("no edge of `{name}` has an address: no client is ever sent there"),
                );
            }
        }
    }

    fn admin(&mut self, table: &str, name: &str, admin: SocketAddr, token: bool) {
        if !admin.ip().is_loopback() && !token {
            self.error(
                path![table, name, "admin"],
                "beyond loopback the admin API needs `admin_token_file`",
            );
        }
    }

    pub(super) fn nameservers(&mut self) {
        let spec = self.spec;
        for (name, nameserver) in &spec.nameserver {
            if let Some(datacenter) = &nameserver.datacenter {
                let path = path!["nameserver", name, "datacenter"];
                self.refer(path, "datacenter", &spec.datacenter, datacenter);
            }
            if nameserver.listen.is_empty() {
                let path = path!["nameserver", name, "listen"];
                self.error(path, "a nameserver needs an address, such as \"192.0.2.53:53\"");
            }
            self.admin("nameserver", name, nameserver.admin, nameserver.admin_token_file.is_some());
            self.within(path!["nameserver", name, "workers"], nameserver.workers, 0, 1024);
            self.within(
                path!["nameserver", name, "tcp_connections"],
                nameserver.tcp_connections,
                1,
                1_000_000,
            );
            self.within(
                path!["nameserver", name, "tcp_connections_per_client"],
                nameserver.tcp_connections_per_client,
                1,
                1_000_000,
            );
            self.no_zero(path!["nameserver", name, "tcp_idle"], nameserver.tcp_idle, SECOND);
            for (key, text, most) in
                [("nsid", &nameserver.nsid, 128), ("version", &nameserver.version, 255)]
            {
                if text.as_ref().is_some_and(|text| text.is_empty() || text.len() > most) {
                    let path = path!["nameserver", name, key];
                    self.error(path, format!("write 1 to {most} octets, or leave `{key}` out"));
                }
            }
            self.encrypted(name, nameserver);
            self.rate_limit(name, &nameserver.rate_limit);
        }
    }

    fn encrypted(&mut self, name: &str, nameserver: &NameserverSpec) {
        let NameserverSpec { dot, doh, doq, tls, .. } = nameserver;
        let first =
            [("dot", dot), ("doh", doh), ("doq", doq)].into_iter().find(|l| !l.1.is_empty());
        match (first, tls) {
            (Some((key, _)), None) => self.warn(
                path!["nameserver", name, key],
                "without `tls` the certificate is a self-signed one, new with every start: clients that verify it go away",
            ),
            (None, Some(_)) => self.warn(
                path!["nameserver", name, "tls"],
                "there is no listener in `dot`, `doh` or `doq` that would use it",
            ),
            _ => {}
        }
    }

    fn rate_limit(&mut self, name: &str, limit: &RateLimitSpec) {
        let at = |key: &str| path!["nameserver", name, "rate_limit", key];
        self.within(at("responses"), limit.responses, 0, 1_000_000);
        self.within(at("slip"), limit.slip, 0, 10);
        self.within(at("prefix_v4"), limit.prefix_v4, 8, 32);
        self.within(at("prefix_v6"), limit.prefix_v6, 16, 128);
        if limit.responses > 0 && limit.slip == 0 {
            self.warn(
                at("slip"),
                "with 0, clients whose address is forged by others get no answer at all while that lasts",
            );
        }
        for (index, network) in limit.exempt.iter().enumerate() {
            if let Err(error) = network.parse::<Prefix>() {
                let at = path!["nameserver", name, "rate_limit", "exempt", index];
                self.error(at, error.to_string());
            }
        }
    }

    pub(super) fn edges(&mut self) {
        let spec = self.spec;
        for (name, edge) in &spec.edge {
            let at = |key: &str| path!["edge", name, key];
            self.refer(at("datacenter"), "datacenter", &spec.datacenter, &edge.datacenter);
            if edge.http.is_empty() && edge.https.is_empty() {
                self.error_at_key(path!["edge", name], "an edge needs `http` or `https` listeners");
            }
            if edge.role == Role::Parent && !edge.address.is_empty() {
                self.warn(at("address"), "a parent is in no DNS answer: its address is not used");
            }
            if edge.role != Role::Parent && edge.address.is_empty() {
                self.warn(
                    path!["edge", name],
                    "without an `address` this edge is in no DNS answer",
                );
            }
            for (index, address) in edge.address.iter().enumerate() {
                if address.is_unspecified() || address.is_multicast() {
                    self.error(
                        path!["edge", name, "address", index],
                        format!("clients cannot be sent to {address}"),
                    );
                }
            }
            if let Some(probe) = edge.probe
                && (probe.is_unspecified() || probe.is_multicast())
            {
                self.error(at("probe"), format!("checks cannot ask {probe}"));
            }
            self.admin("edge", name, edge.admin, edge.admin_token_file.is_some());
            for (index, network) in edge.purge_from.iter().enumerate() {
                let path = path!["edge", name, "purge_from", index];
                match network.parse::<Prefix>() {
                    Ok(prefix) if prefix.length() == 0 => self.warn(
                        path,
                        "anybody may purge: name the networks that publish, such as \"10.0.0.0/8\"",
                    ),
                    Ok(_) => {}
                    Err(error) => self.error(path, error.to_string()),
                }
            }
            if edge.memory.0 < 1 << 20 {
                self.error(at("memory"), "this must be at least 1MiB");
            }
            let connections = u64::from(edge.max_connections).saturating_mul(CONNECTION_MEMORY);
            // Nobody has asked for the default: as many come in as there is room for.
            if connections > edge.memory.0 && edge.max_connections != max_connections() {
                self.warn(
                    at("max_connections"),
                    format!(
                        "{} connections take {} of memory and `memory` is {}: about {} will be let in",
                        edge.max_connections,
                        format_size(connections),
                        format_size(edge.memory.0),
                        edge.memory.0 / 4 * 3 / CONNECTION_MEMORY,
                    ),
                );
            }
            if edge.max_object.is_some_and(|size| size.0 > edge.memory.0 || size.0 == 0) {
                self.error(at("max_object"), "this must be between 1B and `memory`");
            }
            let segment = edge.segment.0;
            if !segment.is_power_of_two() || !(64 << 10..=8 << 20).contains(&segment) {
                self.error(at("segment"), "this must be a power of two from 64KiB to 8MiB");
            } else if segment > edge.memory.0 / 8 {
                self.warn(
                    at("segment"),
                    "less than eight segments fit into `memory`: few bodies longer than one stay stored",
                );
            }
            self.disks(name, edge);
            self.within(at("weight"), edge.weight, 0, 1_000_000);
            self.within(at("workers"), edge.workers, 0, 1024);
            self.within(at("max_connections"), edge.max_connections, 1, 10_000_000);
            self.no_zero(at("idle"), edge.idle, SECOND);
            self.no_zero(at("head_timeout"), edge.head_timeout, SECOND);
            // hyper's parser needs 8 KiB; more than 1 MiB for a head is an attack.
            self.within(at("max_head"), edge.max_head.0, 8 << 10, 1 << 20);
        }
    }

    fn disks(&mut self, name: &str, edge: &EdgeSpec) {
        let disk = edge.disk.iter().map(|disk| (path!["edge", name, "disk"], disk));
        let more = edge.disks.iter().enumerate();
        let more = more.map(|(index, disk)| (path!["edge", name, "disks", index], disk));
        let mut seen = Vec::new();
        for (path, disk) in disk.chain(more) {
            let at = |key: &str| [&path[..], &path![key][..]].concat();
            if disk.size.0 < MIN_DISK {
                self.error(at("size"), "this must be at least 16MiB");
            }
            if disk.daily_writes.is_some_and(|writes| writes.0 == 0) {
                self.error(at("daily_writes"), "a disk that is never written holds nothing");
            }
            if seen.contains(&&disk.path) {
                self.error(at("path"), "another disk of this node has this path");
            }
            seen.push(&disk.path);
            let index = disk.size.0 / MEAN_RECORD * INDEX_ENTRY;
            if index > edge.memory.0 / 4 {
                let message = format!(
                    "its index may take {} MiB, more than a quarter of `memory`, when it is full of small objects",
                    index >> 20
                );
                self.warn(at("size"), &message);
            }
        }
    }

    pub(super) fn listeners(&mut self) {
        let spec = self.spec;
        let mut all: Vec<Listener> = Vec::new();
        for (name, nameserver) in &spec.nameserver {
            let NameserverSpec { listen, dot, doh, doq, .. } = nameserver;
            for (key, addresses, ports) in [
                ("listen", listen, &[Ports::Tcp, Ports::Udp][..]),
                ("dot", dot, &[Ports::Tcp]),
                ("doh", doh, &[Ports::Tcp]),
                ("doq", doq, &[Ports::Udp]),
            ] {
                for (index, address) in addresses.iter().enumerate() {
                    let path = path!["nameserver", name, key, index];
                    all.push((path, *address, ports, format!("nameserver.{name}.{key}")));
                }
            }
            let (path, what) =
                (path!["nameserver", name, "admin"], format!("nameserver.{name}.admin"));
            all.push((path, nameserver.admin, &[Ports::Tcp], what));
        }
        for (name, edge) in &spec.edge {
            for (key, listeners) in [("http", &edge.http), ("https", &edge.https)] {
                for (index, address) in listeners.iter().enumerate() {
                    let path = path!["edge", name, key, index];
                    all.push((path, *address, &[Ports::Tcp], format!("edge.{name}.{key}")));
                }
            }
            let (path, what) = (path!["edge", name, "admin"], format!("edge.{name}.admin"));
            all.push((path, edge.admin, &[Ports::Tcp], what));
        }
        let mut seen: BTreeMap<(SocketAddr, Ports), String> = BTreeMap::new();
        for (path, address, ports, what) in all {
            if address.port() == 0 {
                self.error(path, "port 0 is not a port that others can ask");
                continue;
            }
            if address.ip().is_unspecified() {
                // Nodes on different machines may all write 0.0.0.0.
                continue;
            }
            match ports.iter().find_map(|ports| seen.get(&(address, *ports))) {
                Some(other) => {
                    let message = format!("{address} is {other} already");
                    self.error(path, message);
                }
                None => seen.extend(ports.iter().map(|ports| ((address, *ports), what.clone()))),
            }
        }
    }
}

/// A log of fewer bytes than this has no room for its own turning over.
const MIN_DISK: u64 = 16 << 20;
/// A small mean for what lies on a disk.
const MEAN_RECORD: u64 = 16 << 10;
/// What the index of a disk takes for a record.
const INDEX_ENTRY: u64 = 32;

/// Where a listener is written, its address, which ports it takes there, and what it is called.
type Listener = (Vec<Step>, SocketAddr, &'static [Ports], String);

/// Ports of UDP and of TCP have nothing to do with each other: `doh` and `doq` may both be on 443.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ports {
    Tcp,
    Udp,
}
