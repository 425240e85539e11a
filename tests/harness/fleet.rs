//! The real programs on free ports: started from a written configuration, waited for until ready, watched, signalled,
//! ended. When a test fails, the fleet shows what its nodes had to say.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::clock::Clock;
use crate::counters::{Scrape, Watch};
use crate::faults::{self, Faults};
use crate::origin::{Origin, Script};
use crate::plan::{Addresses, Planned};
use crate::process::{Process, Program, Signal, raise_descriptor_limit};
use crate::{preload, wait, wire};

/// How many lines of a node's log a failed test shows.
const LOG_LINES: usize = 60;
/// How often a node is started again whose port was taken between its release and its start.
const PORT_CLASHES: usize = 5;

/// The nodes of one configuration. A test that passes still fails here when a node has panicked.
pub struct Fleet {
    dir: TempDir,
    text: String,
    nodes: Vec<Node>,
}

/// A node: an address book entry, and a process while it runs.
pub struct Node {
    name: String,
    program: Program,
    addresses: Addresses,
    config: PathBuf,
    log: PathBuf,
    rank: u8,
    process: Option<Process>,
    variables: Vec<(&'static str, PathBuf)>,
}

impl Fleet {
    pub(crate) fn new(dir: TempDir, text: String, nodes: Vec<Planned>) -> Self {
        raise_descriptor_limit();
        let config = dir.path().join("meridian.toml");
        let nodes = nodes.into_iter().map(|Planned { name, program, addresses }| {
            let log = dir.path().join(format!("{name}.log"));
            let rank = match (program, addresses.https) {
                (Program::EdgeCache, None) => 0,
                (Program::EdgeCache, Some(_)) => 1,
                (Program::Geodns, _) => 2,
            };
            Node {
                name,
                program,
                addresses,
                config: config.clone(),
                log,
                rank,
                process: None,
                variables: Vec::new(),
            }
        });
        let fleet = Self { nodes: nodes.collect(), dir, text };
        fleet.save();
        fleet
    }

    fn save(&self) {
        std::fs::write(self.config(), &self.text).unwrap();
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("meridian.toml")
    }

    /// The folder of the configuration, its zones and the logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Replaces one piece of the configuration, which must be there, and writes the file. No node is told.
    #[track_caller]
    pub fn edit(&mut self, from: &str, to: &str) {
        assert!(self.text.contains(from), "the configuration has no {from:?}:\n{}", self.text);
        self.text = self.text.replace(from, to);
        self.save();
    }

    /// The node of this name.
    #[track_caller]
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("the plan has no node {name}"))
    }

    /// The node of this name, to be started, ended or signalled.
    #[track_caller]
    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.unwrap_or_else(|| panic!("the plan has no node {name}"))
    }

    /// Starts every node that does not run and waits until all are ready. Those that others watch go first: parents,
    /// then edges, then name servers, so that no node begins by finding the next one down.
    #[track_caller]
    pub fn start_all(&mut self) {
        for rank in 0..3 {
            for node in self.nodes.iter_mut().filter(|node| node.rank == rank) {
                node.spawn();
            }
            for node in self.nodes.iter_mut().filter(|node| node.rank == rank) {
                node.ready();
            }
        }
    }

    /// Runs a command of a program on this configuration to its end.
    pub fn run(&self, program: Program, args: &[&str]) -> Output {
        let config = self.config();
        let mut all = args.to_vec();
        all.extend(["--config", config.to_str().unwrap()]);
        program.run(&all)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- configuration\n{}", self.text);
            for node in &self.nodes {
                eprintln!("---- {} ({})\n{}", node.name, node.program.name(), node.last_lines());
            }
        }
        let mut running: Vec<Process> =
            self.nodes.iter_mut().filter_map(|node| node.process.take()).collect();
        for process in &mut running {
            process.signal(Signal::Cont);
            process.signal(Signal::Term);
        }
        for process in &mut running {
            process.end(Duration::from_millis(500));
        }
        if !std::thread::panicking() {
            for node in &self.nodes {
                let panicked = node.log().lines().any(|line| line.contains("panicked at"));
                assert!(!panicked, "{} panicked:\n{}", node.name, node.last_lines());
            }
        }
    }
}

impl Node {
    /// Once it is started it runs by this clock.
    pub fn run_by(&mut self, clock: &Clock) {
        preload::add(&mut self.variables, clock.variables());
    }

    /// Once it is started, these are its disks.
    pub fn stand_on(&mut self, disks: &[&Faults]) {
        preload::add(&mut self.variables, faults::variables(disks));
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address, the one that DNS answers with.
    pub fn ip(&self) -> Ipv4Addr {
        self.addresses.ip
    }

    /// Where it answers DNS.
    #[track_caller]
    pub fn dns(&self) -> SocketAddr {
        self.addresses.dns.unwrap()
    }

    /// Where it answers DNS over TLS and QUIC.
    #[track_caller]
    pub fn dot(&self) -> SocketAddr {
        self.addresses.dot.unwrap()
    }

    /// Where it answers DNS over HTTPS.
    #[track_caller]
    pub fn doh(&self) -> SocketAddr {
        self.addresses.doh.unwrap()
    }

    /// Where it serves HTTP.
    #[track_caller]
    pub fn http(&self) -> SocketAddr {
        self.addresses.http.unwrap()
    }

    /// Where it serves HTTPS.
    #[track_caller]
    pub fn https(&self) -> SocketAddr {
        self.addresses.https.unwrap()
    }

    /// Where its admin API is.
    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    /// A GET on the public listener for the site of the tests.
    #[track_caller]
    pub fn get(&self, target: &str) -> wire::Reply {
        wire::get(self.http(), "www.cdn.test", target)
    }

    /// A GET on the admin listener, read as JSON.
    #[track_caller]
    pub fn admin_json(&self, target: &str) -> Value {
        let reply = wire::get(self.admin(), &self.admin().to_string(), target);
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// A request on the admin listener.
    #[track_caller]
    pub fn admin_request(&self, method: &str, target: &str, body: &str) -> wire::Reply {
        let host = self.admin().to_string();
        let request = wire::Request::new(method, &host, target)
            .field("Content-Type", "application/json")
            .body(body);
        request.send(self.admin())
    }

    /// Its counters from now on.
    #[track_caller]
    pub fn watch(&self) -> Watch {
        Watch::new(self.admin())
    }

    /// Its counters.
    #[track_caller]
    pub fn metrics(&self) -> Scrape {
        Scrape::of(self.admin())
    }

    /// The file that takes its output.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Resident memory of the running process, in bytes.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        let id = self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).id();
        let statm = std::fs::read_to_string(format!("/proc/{id}/statm")).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    fn spawn(&mut self) {
        if self.process.is_none() {
            self.addresses.release();
            let config = self.config.to_str().unwrap();
            let args = ["serve", "--config", config, "--node", &self.name];
            let program = self.program.path();
            self.process = Some(Process::start_with(program, &args, &self.variables, &self.log));
        }
    }

    #[track_caller]
    fn ready(&mut self) {
        let admin = self.admin();
        let host = admin.to_string();
        for _ in 0..PORT_CLASHES {
            let process = self.process.as_mut().unwrap();
            let status = wait::until("a node to become ready", || {
                if let Some(status) = process.exited() {
                    return Some(Err(status));
                }
                let reply = wire::Request::get(&host, "/readyz").try_send(admin)?;
                (reply.status == 200).then_some(Ok(()))
            });
            let Err(status) = status else { return };
            let log = self.last_lines();
            let clash = log.contains("in use");
            assert!(clash, "{} ended with {status} before it was ready:\n{log}", self.name);
            self.process = None;
            self.spawn();
        }
        panic!("{} found its ports taken {PORT_CLASHES} times", self.name);
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        self.spawn();
        self.ready();
    }

    /// A scripted origin at its HTTP address, in its place: something for health checks to find.
    #[track_caller]
    pub fn stand_in(&mut self) -> Origin {
        assert!(self.process.is_none(), "{} runs itself", self.name);
        self.addresses.release();
        let origin = Origin::start_on(self.http());
        origin.route("/.meridian/health", Script::ok("healthy\n"));
        origin
    }

    /// Starts it and waits for it to end by itself.
    #[track_caller]
    pub fn start_and_fail(&mut self) -> ExitStatus {
        self.spawn();
        self.process.take().unwrap().wait(wait::PATIENCE)
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        self.process.as_mut().expect("the node does not run").signal(signal);
    }

    /// SIGKILL, and waits for the end.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the node does not run");
        process.signal(Signal::Kill);
        process.wait(wait::PATIENCE);
    }

    /// Waits for the end by itself, after a SIGTERM.
    #[track_caller]
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        self.process.take().expect("the node does not run").wait(limit)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.exited().is_some())
    }

    /// Ends it and starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(wait::PATIENCE);
        }
        self.start();
    }
}
