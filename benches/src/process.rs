//! A server's processes: started on a core, asked for what they cost, stopped by their group.
#![expect(
    unsafe_code,
    clippy::disallowed_methods,
    reason = "processes, /proc, signals and waiting for them"
)]

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// CPU time of a server since its start, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
}

impl Cpu {
    /// What was used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// A running server: a process group.
#[derive(Debug)]
pub struct Server {
    child: Child,
    name: String,
    log: PathBuf,
    /// How long it took from its start to its first answer.
    pub ready_after: Duration,
}

impl Server {
    /// Starts `program` on `core` in a process group of its own, with its output in `log`.
    pub fn start(name: &str, core: usize, program: &[String], log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = Command::new("taskset");
        command
            .args(["-c", &core.to_string()])
            .args(program)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        // SAFETY: prctl only asks the kernel to end the server when the thread that starts it, main, is gone: a signal
        // to this process does not reach the server's group.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().context("cannot run taskset")?;
        let (name, log) = (name.to_owned(), log.to_owned());
        Ok(Self { child, name, log, ready_after: Duration::ZERO })
    }

    /// Waits until `ready` says so, which waits a little itself.
    pub fn wait_ready(
        &mut self,
        started: Instant,
        within: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended with {status}:\n{}", self.name, self.last_lines());
            }
            if started.elapsed() > within {
                anyhow::bail!("{} does not answer:\n{}", self.name, self.last_lines());
            }
            if ready() {
                self.ready_after = started.elapsed();
                return Ok(());
            }
        }
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
    }

    fn group(&self) -> libc::pid_t {
        self.child.id() as libc::pid_t
    }

    /// Its processes: the one started and those that this one started.
    fn members(&self) -> Vec<libc::pid_t> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &libc::pid_t| {
                stat(*pid).is_some_and(|fields| field(&fields, 2) == Some(i64::from(self.group())))
            })
            .collect()
    }

    /// CPU time of all its processes and threads.
    pub fn cpu(&self) -> Cpu {
        // SAFETY: asks for a constant of the system.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
        let mut cpu = Cpu::default();
        for fields in self.members().into_iter().filter_map(stat) {
            cpu.user += field(&fields, 11).unwrap_or(0) as f64 / ticks;
            cpu.system += field(&fields, 12).unwrap_or(0) as f64 / ticks;
        }
        cpu
    }

    /// Bytes that its processes have caused to be written to disks (`write_bytes` of /proc/PID/io).
    pub fn written(&self) -> u64 {
        let of = |pid: libc::pid_t| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
            line.trim().parse::<u64>().ok()
        };
        self.members().into_iter().filter_map(of).sum()
    }

    /// Memory in bytes: shared pages count once over all its processes where the kernel tells.
    pub fn memory(&self) -> u64 {
        self.sum(&["Pss:"])
    }

    /// The same without pages of files, which the kernel can have back.
    pub fn own_memory(&self) -> u64 {
        self.sum(&["Pss_Anon:", "Pss_Shmem:"])
    }

    /// Sums of fields of the kernel's summary; of none of them, what is resident.
    fn sum(&self, keys: &[&str]) -> u64 {
        let of = |pid: libc::pid_t| {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let status = || std::fs::read_to_string(format!("/proc/{pid}/status"));
            let find = |text: &str, key: &str| {
                let line = text.lines().find(|line| line.starts_with(key))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            };
            let sum = rollup.ok().and_then(|text| keys.iter().map(|key| find(&text, key)).sum());
            sum.or_else(|| find(&status().ok()?, "VmRSS:")).unwrap_or(0) * 1024
        };
        self.members().into_iter().map(of).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = self.group();
        // SAFETY: signals to the group that `start` made; its leader is not waited for yet, so the id is still its own.
        unsafe { libc::kill(-group, libc::SIGTERM) };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // What is left of the group, helpers included.
        for pid in self.members() {
            // SAFETY: the process is in our group as /proc just said.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let _ = self.child.wait();
    }
}

/// The fields of /proc/PID/stat after the name of the program.
fn stat(pid: libc::pid_t) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(") ")?.1.to_owned())
}

fn field(fields: &str, index: usize) -> Option<i64> {
    fields.split(' ').nth(index)?.parse().ok()
}

/// A port that is free for UDP and TCP on every address of this machine, at this moment.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..100 {
        let tcp = TcpListener::bind("0.0.0.0:0")?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("there is no free port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_group_whose_cpu_is_counted_and_which_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = "while :; do :; done & while :; do :; done";
        let program = ["sh", "-c", script].map(str::to_owned);
        let server = Server::start("sh", 0, &program, &dir.path().join("log")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.members().len() < 2 || server.cpu().user < 0.05 {
            assert!(Instant::now() < deadline, "{:?} {:?}", server.members(), server.cpu());
            std::thread::yield_now();
        }
        assert!(server.memory() > 0);
        let members = server.members();
        drop(server);
        let left = |pid: &libc::pid_t| stat(*pid).is_some_and(|fields| !fields.starts_with('Z'));
        while members.iter().any(left) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
