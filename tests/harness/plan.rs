//! A configuration written by a test: nodes get loopback addresses of their own and free ports, everything else is the
//! text of the contract.
//!
//! Every plan has a /24 of 127.0.0.0/8 to itself, so that fleets of tests that run at the same time never meet, and a
//! port that was free when it was reserved is free when its node starts.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::fleet::Fleet;
use crate::process::Program;

/// The reserved addresses of a node. The sockets are held until the node starts.
#[derive(Debug)]
pub struct Addresses {
    /// The node's own loopback address.
    pub ip: Ipv4Addr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The DNS listener, UDP and TCP.
    pub dns: Option<SocketAddr>,
    /// The listener of DNS over TLS, and over QUIC.
    pub dot: Option<SocketAddr>,
    /// The listener of DNS over HTTPS.
    pub doh: Option<SocketAddr>,
    /// The HTTP listener.
    pub http: Option<SocketAddr>,
    /// The HTTPS listener.
    pub https: Option<SocketAddr>,
    held: Vec<Socket>,
}

impl Addresses {
    /// Lets the sockets go, for the node to take them.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// Bound, but not listening: a node that does not run refuses connections.
    fn hold(&mut self, kind: Type, port: u16) -> std::io::Result<SocketAddr> {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.bind(&SocketAddr::from((self.ip, port)).into())?;
        let addr = socket.local_addr()?.as_socket().unwrap();
        self.held.push(socket);
        Ok(addr)
    }

    fn tcp(&mut self) -> SocketAddr {
        self.hold(Type::STREAM, 0).unwrap()
    }

    fn both(&mut self) -> SocketAddr {
        loop {
            let addr = self.tcp();
            if self.hold(Type::DGRAM, addr.port()).is_ok() {
                return addr;
            }
        }
    }
}

/// A node of the plan.
#[derive(Debug)]
pub struct Planned {
    /// Its name in the configuration.
    pub name: String,
    /// What runs it.
    pub program: Program,
    /// Where it listens.
    pub addresses: Addresses,
}

/// A configuration in the making.
#[derive(Debug)]
pub struct Plan {
    dir: TempDir,
    text: String,
    net: [u8; 2],
    nodes: Vec<Planned>,
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Plan {
    /// An empty cluster named after the tests.
    pub fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let process = u8::try_from(std::process::id() % 100).unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            text: "[cluster]\nname = \"test\"\n".to_owned(),
            net: [100 + process, NEXT.fetch_add(1, Ordering::Relaxed)],
            nodes: Vec::new(),
        }
    }

    fn addresses(&self) -> Addresses {
        let host = u8::try_from(self.nodes.len() + 1).unwrap();
        let ip = Ipv4Addr::new(127, self.net[0], self.net[1], host);
        let mut addresses = Addresses {
            ip,
            admin: SocketAddr::from((ip, 0)),
            dns: None,
            dot: None,
            doh: None,
            http: None,
            https: None,
            held: Vec::new(),
        };
        addresses.admin = addresses.tcp();
        addresses
    }

    /// A datacenter at this place.
    #[must_use]
    pub fn datacenter(self, name: &str, latitude: f64, longitude: f64) -> Self {
        let place = format!("location = [{latitude:?}, {longitude:?}]");
        self.toml(&format!("[datacenter.{name}]\n{place}"))
    }

    /// Seoul, Frankfurt and Virginia, as in the demo.
    #[must_use]
    pub fn three_datacenters(self) -> Self {
        self.datacenter("icn", 37.46, 126.44)
            .datacenter("fra", 50.03, 8.57)
            .datacenter("iad", 38.94, -77.45)
    }

    /// A name server on UDP and TCP.
    #[must_use]
    pub fn nameserver(mut self, name: &str, datacenter: &str) -> Self {
        let mut addresses = self.addresses();
        let dns = addresses.both();
        addresses.dns = Some(dns);
        let admin = addresses.admin;
        write!(
            self.text,
            "\n[nameserver.{name}]\ndatacenter = \"{datacenter}\"\nlisten = [\"{dns}\"]\nadmin = \"{admin}\"\n"
        )
        .unwrap();
        self.nodes.push(Planned { name: name.to_owned(), program: Program::Geodns, addresses });
        self
    }

    /// The name server written last, on TLS, HTTPS and QUIC, too.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        let addresses = &mut self.nodes.last_mut().unwrap().addresses;
        let (dot, doh) = (addresses.both(), addresses.tcp());
        (addresses.dot, addresses.doh) = (Some(dot), Some(doh));
        writeln!(self.text, "dot = [\"{dot}\"]\ndoq = [\"{dot}\"]\ndoh = [\"{doh}\"]").unwrap();
        self
    }

    /// A node of the first tier, on HTTP and HTTPS.
    #[must_use]
    pub fn edge(self, name: &str, datacenter: &str) -> Self {
        self.cache_node(name, datacenter, "edge", "memory = \"64MiB\"")
    }

    /// A node of the second tier.
    #[must_use]
    pub fn parent(self, name: &str, datacenter: &str) -> Self {
        self.cache_node(name, datacenter, "parent", "memory = \"64MiB\"")
    }

    /// A cache node with further lines in its table.
    #[must_use]
    pub fn cache_node(mut self, name: &str, datacenter: &str, role: &str, more: &str) -> Self {
        let mut addresses = self.addresses();
        let (ip, http, admin) = (addresses.ip, addresses.tcp(), addresses.admin);
        addresses.http = Some(http);
        write!(
            self.text,
            "\n[edge.{name}]\ndatacenter = \"{datacenter}\"\nrole = \"{role}\"\nhttp = [\"{http}\"]\nadmin = \"{admin}\"\n{more}\n"
        )
        .unwrap();
        if role != "parent" {
            let https = addresses.tcp();
            addresses.https = Some(https);
            writeln!(self.text, "address = [\"{ip}\"]\nhttps = [\"{https}\"]").unwrap();
        }
        self.nodes.push(Planned { name: name.to_owned(), program: Program::EdgeCache, addresses });
        self
    }

    /// A zone with these records under a SOA and two name servers, and steered names.
    #[must_use]
    pub fn zone(self, apex: &str, records: &str, steer: &[(&str, &str)]) -> Self {
        let file = format!("{apex}.zone");
        let zone = format!(
            "$ORIGIN {apex}.\n$TTL 300\n\
             @ IN SOA ns1 hostmaster 1 3600 600 86400 60\n\
             @ IN NS ns1\n@ IN NS ns2\nns1 IN A 192.0.2.53\nns2 IN A 192.0.2.54\n{records}\n"
        );
        std::fs::write(self.dir.path().join(&file), zone).unwrap();
        let steer: Vec<String> =
            steer.iter().map(|(owner, policy)| format!("\"{owner}\" = \"{policy}\"")).collect();
        let steer = steer.join(", ");
        self.toml(&format!("[zone.\"{apex}\"]\nfile = \"{file}\"\nsteer = {{ {steer} }}"))
    }

    /// More of the configuration, as it stands.
    #[must_use]
    pub fn toml(mut self, text: &str) -> Self {
        self.text.push('\n');
        self.text.push_str(text.trim());
        self.text.push('\n');
        self
    }

    /// A file beside the configuration.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    /// The next address of this plan that no node has, for a peer of the test itself.
    pub fn spare_ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.net[0], self.net[1], 200))
    }

    /// Starts nothing: the configuration is written, the nodes are started one by one by the test.
    pub fn write(self) -> Fleet {
        Fleet::new(self.dir, self.text, self.nodes)
    }

    /// Starts every node and waits until each says it is ready.
    #[track_caller]
    pub fn start(self) -> Fleet {
        let mut fleet = self.write();
        fleet.start_all();
        fleet
    }
}
