//! Whether a cache node keeps to its memory: the resident memory of a whole `edge-cache` process beside `memory` of its
//! configuration, while it is idle, under connections, under churn, under slow readers of one large object, and after.
//!
//! `memory_limit --memory 512MiB --memory 1GiB`; with `--http2` readers over HTTP/2, too, with `--disk 2GiB` the large object
//! lies on a disk below. Every byte that a reader gets is compared. `memory_limit --prediction` measures something else of
//! such a process: what predicting its hit ratio takes of its CPU time. Exit code 1 when a peak, or that, is above the goal.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark has a clock, sockets and a process of its own, and prints"
)]

mod http2;
mod origin;
mod prediction;

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use shared::size::parse_size;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use origin::{PIECE, Pattern, object_size};

/// Resident memory may be so much of what is configured.
const GOAL: f64 = 1.10;
/// How much a client's socket takes before the node has to wait.
const RECEIVE_BUFFER: u32 = 16 << 10;

#[derive(Parser)]
#[command(about = "Resident memory of a cache node against its limit")]
struct Args {
    /// `memory` of the node; may be given several times
    #[arg(long, default_values = ["512MiB", "1GiB"], value_parser = parse_size)]
    memory: Vec<u64>,
    /// Connections that are open and ask nothing, and slow readers
    #[arg(long, default_value_t = 10_000)]
    readers: usize,
    /// The object that they read, each from an offset of its own
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    object: u64,
    /// Objects that go through the store before
    #[arg(long, default_value_t = 100_000)]
    churn: u64,
    /// For how long the slow readers read
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What each of them takes in a second
    #[arg(long, default_value = "4KiB", value_parser = parse_size)]
    rate: u64,
    /// The large object lies on a disk of this size below the memory
    #[arg(long, value_parser = parse_size)]
    disk: Option<u64>,
    /// As many readers over HTTP/2, a hundred on each connection
    #[arg(long)]
    http2: bool,
    /// Instead: what predicting its hit ratio takes of the CPU time that the node spends on hits
    #[arg(long)]
    prediction: bool,
    /// The program; default: the one beside this one
    #[arg(long)]
    edge: Option<PathBuf>,
}

/// A process that ends with this value.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where it listens.
#[derive(Clone, Copy)]
struct Places {
    http: SocketAddr,
    https: SocketAddr,
    admin: SocketAddr,
}

/// Looks at the resident memory of a process twenty times a second.
struct Watch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    pid: u32,
}

impl Watch {
    fn start(pid: u32) -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&peak));
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                seen.fetch_max(resident(pid).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { stop, peak, pid }
    }

    /// The most since the last call, and what it is now.
    fn take(&self) -> anyhow::Result<(u64, u64)> {
        let now = resident(self.pid)?;
        Ok((self.peak.swap(0, Ordering::Relaxed).max(now), now))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn resident(pid: u32) -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = statm.split(' ').nth(1).context("statm has another form")?;
    Ok(pages.parse::<u64>()? * 4096)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    raise_descriptor_limit();
    let pattern = Arc::new(Pattern::new());
    let origin = origin::start(Arc::clone(&pattern), args.object)?;
    let mut good = true;
    if args.prediction {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        good = runtime.block_on(prediction::measure(&args, origin))?;
    }
    for memory in args.memory.iter().filter(|_| !args.prediction) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        good &= runtime.block_on(local.run_until(measure(&args, *memory, origin, &pattern)))?;
    }
    println!("{}", if good { "ok" } else { "above the goal" });
    Ok(ExitCode::from(u8::from(!good)))
}

async fn measure(
    args: &Args,
    memory: u64,
    origin: SocketAddr,
    pattern: &Arc<Pattern>,
) -> anyhow::Result<bool> {
    let scratch = tempfile::tempdir()?;
    let (node, places) = start_node(args, memory, origin, scratch.path())?;
    let address = places.http;
    let watch = Watch::start(node.0.id());
    let mut good = true;
    println!(
        "memory = {} MiB\n{:<52}{:>10}{:>8}{:>10}",
        memory >> 20,
        "",
        "peak MiB",
        "share",
        "then MiB"
    );
    let mut row = |what: &str| -> anyhow::Result<u64> {
        let (peak, now) = watch.take()?;
        let share = peak as f64 / memory as f64;
        good &= share <= GOAL;
        println!("{what:<52}{:>10.1}{share:>8.3}{:>10.1}", mib(peak), mib(now));
        Ok(now)
    };
    until_it_serves(address).await?;
    sleep(Duration::from_secs(1)).await;
    let idle = row("idle")?;

    let mut open = Vec::new();
    for _ in 0..args.readers {
        let mut stream = connect(address).await?;
        stream.write_all(b"GET /.meridian/health HTTP/1.1\r\nHost: bench.test\r\n\r\n").await?;
        let mut answer = [0; 512];
        ensure!(stream.read(&mut answer).await? > 0, "a connection was refused");
        open.push(stream);
    }
    let with = row(&format!("{} connections after one request", args.readers))?;
    println!("    {} bytes each", with.saturating_sub(idle) / args.readers.max(1) as u64);
    drop(open);
    sleep(Duration::from_secs(5)).await;
    watch.take()?;
    row("5 s after they were closed")?;

    churn(args, address, pattern).await?;
    row(&format!("{} objects, 64 connections", args.churn))?;
    sleep(Duration::from_secs(5)).await;
    watch.take()?;
    let before = row("5 s after")?;

    if args.disk.is_some() {
        for _ in 0..2 {
            whole(args, address, pattern).await?;
        }
        row(&format!("{} MiB read twice", args.object >> 20))?;
        println!("    {:.0} MiB on disk", mib(on_disk(places.admin).await?));
    }
    let what = format!("slow readers of {} MiB", args.object >> 20);
    let slow = slow_readers(args, address, pattern).await?;
    let after = row(&format!("{} {what}", args.readers))?;
    println!("{}", slow.told(args, after.saturating_sub(before)));
    sleep(Duration::from_secs(5)).await;
    watch.take()?;
    let before = row("5 s after they were closed")?;
    if args.http2 {
        let slow = http2::slow_readers(args, places.https, pattern).await?;
        let after = row(&format!("{} {what}, HTTP/2", args.readers))?;
        println!("{}", slow.told(args, after.saturating_sub(before)));
        sleep(Duration::from_secs(5)).await;
        watch.take()?;
        row("5 s after they were closed")?;
    }
    Ok(good)
}

/// All of the large object, as fast as it comes.
async fn whole(args: &Args, address: SocketAddr, pattern: &Pattern) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: bench.test\r\n\r\n").await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    ensure!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let (mut at, mut buffer) = (0, vec![0; PIECE]);
    while at < args.object {
        let read = stream.read(&mut buffer).await?;
        let got = buffer.get(..read).unwrap_or_default();
        ensure!(read > 0 && got == pattern.at(at, read as u64), "wrong bytes at {at}");
        at += read as u64;
    }
    Ok(())
}

/// Bytes that the node's disks hold.
async fn on_disk(admin: SocketAddr) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(admin).await?;
    // By its address, as the admin API wants it.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {admin}\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let line = text
        .lines()
        .find(|line| line.starts_with("edge_cache_store_bytes") && line.contains("\"disk\""));
    let value = line.and_then(|line| line.split(' ').nth(1)).context("no disk in the metrics")?;
    Ok(value.parse::<f64>()? as u64)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Objects of 1 to 63 KiB, each asked for once.
async fn churn(args: &Args, address: SocketAddr, pattern: &Arc<Pattern>) -> anyhow::Result<()> {
    let next = Rc::new(std::cell::Cell::new(0));
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let (next, pattern, count) = (Rc::clone(&next), Arc::clone(pattern), args.churn);
        tasks.push(tokio::task::spawn_local(async move {
            let mut stream = connect(address).await?;
            let mut buffer = vec![0; PIECE + 4096];
            while next.get() < count {
                let id = next.replace(next.get() + 1);
                let request = format!("GET /o/{id} HTTP/1.1\r\nHost: bench.test\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let (mut have, mut whole) = (0, usize::MAX);
                while have < whole {
                    let rest = buffer.get_mut(have..).context("a response too long")?;
                    let read = stream.read(rest).await?;
                    ensure!(read > 0, "a connection was cut");
                    have += read;
                    if let Some(end) = head_end(buffer.get(..have).unwrap_or_default()) {
                        whole = end + usize::try_from(object_size(id))?;
                    }
                }
                let end = head_end(&buffer).unwrap_or(0);
                let body = buffer.get(end..whole).unwrap_or_default();
                ensure!(body == pattern.at(0, object_size(id)), "wrong bytes of /o/{id}");
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// What became of slow readers.
#[derive(Default)]
pub(crate) struct Readers {
    /// Bytes that they got.
    read: std::cell::Cell<u64>,
    /// Those that got no response, or one that says that there is no room.
    refused: std::cell::Cell<u64>,
    /// Those whose response broke off.
    cut: std::cell::Cell<u64>,
}

impl Readers {
    pub(crate) fn add(&self, bytes: u64) {
        self.read.set(self.read.get() + bytes);
    }

    pub(crate) fn refuse(&self, how_many: u64) {
        self.refused.set(self.refused.get() + how_many);
    }

    pub(crate) fn cut(&self) {
        self.cut.set(self.cut.get() + 1);
    }

    fn told(&self, args: &Args, more: u64) -> String {
        format!(
            "    {} MiB read, {} refused, {} cut; {} bytes each over what was before",
            self.read.get() >> 20,
            self.refused.get(),
            self.cut.get(),
            more / args.readers.max(1) as u64
        )
    }
}

async fn slow_readers(
    args: &Args,
    address: SocketAddr,
    pattern: &Arc<Pattern>,
) -> anyhow::Result<Rc<Readers>> {
    let readers = Rc::new(Readers::default());
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut tasks = Vec::new();
    for number in 0..args.readers as u64 {
        let (readers, pattern) = (Rc::clone(&readers), Arc::clone(pattern));
        let (length, rate) = (args.object, args.rate);
        let offset = length / args.readers as u64 * number;
        // All of them begin within ten seconds.
        let begin = Duration::from_millis(10_000 * number / args.readers as u64);
        tasks.push(tokio::task::spawn_local(async move {
            sleep(begin).await;
            let Some(stream) = asked(address, offset).await? else {
                readers.refuse(1);
                return Ok(());
            };
            match slow_reader(stream, offset, length, rate, end, &pattern, &readers).await {
                Err(error) if error.downcast_ref::<std::io::Error>().is_none() => Err(error),
                Err(_) => {
                    readers.cut();
                    Ok(())
                }
                Ok(()) => anyhow::Ok(()),
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(readers)
}

/// A connection on which all from an offset on has been asked for, after the head of the response; none if it is refused.
async fn asked(address: SocketAddr, offset: u64) -> anyhow::Result<Option<TcpStream>> {
    let Ok(mut stream) = connect(address).await else { return Ok(None) };
    let request =
        format!("GET /big HTTP/1.1\r\nHost: bench.test\r\nRange: bytes={offset}-\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return Ok(None);
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 4096, "no head");
        let Ok(byte) = stream.read_u8().await else { return Ok(None) };
        head.push(byte);
    }
    if head.starts_with(b"HTTP/1.1 503") {
        return Ok(None);
    }
    ensure!(head.starts_with(b"HTTP/1.1 206"), "{}", String::from_utf8_lossy(&head));
    Ok(Some(stream))
}

async fn slow_reader(
    stream: TcpStream,
    offset: u64,
    length: u64,
    rate: u64,
    end: Instant,
    pattern: &Pattern,
    readers: &Readers,
) -> anyhow::Result<()> {
    let mut at = offset;
    while Instant::now() < end && at < length {
        let mut left = rate.min(length - at);
        while left > 0 {
            stream.readable().await?;
            // On the stack between two waits only: ten thousand readers have no buffer each.
            let mut buffer = [0; 4096];
            let room = usize::try_from(left)?.min(buffer.len());
            let read = match stream.try_read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let got = buffer.get(..read).unwrap_or_default();
            ensure!(got == pattern.at(at, read as u64), "wrong bytes at {at}");
            at += read as u64;
            left -= read as u64;
            readers.add(read as u64);
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(address).await
}

async fn until_it_serves(address: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    while connect(address).await.is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "the node does not serve");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn start_node(
    args: &Args,
    memory: u64,
    origin: SocketAddr,
    folder: &Path,
) -> anyhow::Result<(Node, Places)> {
    let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
    let places = Places { http: free()?, https: free()?, admin: free()? };
    let Places { http, https, admin } = places;
    let disk = args.disk.map_or(String::new(), |size| {
        let path = folder.join("disk");
        format!(
            "disk = {{ path = \"{}\", size = \"{size}B\", daily_writes = \"100TiB\" }}",
            path.display()
        )
    });
    let mut config = String::new();
    write!(
        config,
        r#"
[datacenter.here]
location = [50.03, 8.57]
[edge.bench]
datacenter = "here"
http = ["{http}"]
https = ["{https}"]
admin = "{admin}"
{disk}
memory = "{memory}B"
max_connections = {}
idle = "10m"
[origin.bench]
servers = [ {{ url = "http://{origin}" }} ]
max_connections = 256
timeouts = {{ connect = "30s", first_byte = "60s", between_bytes = "60s" }}
[site.bench]
hosts = ["bench.test"]
routes = [ {{ path = "/*", origin = "bench" }} ]
"#,
        args.readers + 1000
    )?;
    let file = folder.join("meridian.toml");
    std::fs::write(&file, config)?;
    let program = match &args.edge {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("edge-cache"),
    };
    let log = std::fs::File::create(folder.join("log"))?;
    let child = Command::new(&program)
        .arg("--config")
        .arg(&file)
        .args(["--log-level", "error", "serve"])
        .stdin(Stdio::null())
        .stdout(log)
        .spawn();
    let child = child.with_context(|| format!("cannot start {}", program.display()))?;
    Ok((Node(child), places))
}

/// Lets this process and the node have as many descriptors as the system allows.
#[expect(unsafe_code, reason = "std has no resource limits")]
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a valid pointer to a limit that lives on this frame.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
