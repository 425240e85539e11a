//! Child processes: the programs under test are built once per test run, started, signalled and ended by process id.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::wait;

/// The programs under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The DNS server.
    Geodns,
    /// The cache node.
    EdgeCache,
}

impl Program {
    /// The name of package and executable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Geodns => "geodns",
            Self::EdgeCache => "edge-cache",
        }
    }

    /// The executable, built in the profile of the tests by the first caller.
    pub fn path(self) -> &'static Path {
        static BUILT: OnceLock<Option<Vec<(String, PathBuf)>>> = OnceLock::new();
        let Some(built) = BUILT.get_or_init(build) else {
            panic!("cargo could not build the programs under test");
        };
        let found = built.iter().find(|(name, _)| name == self.name());
        &found.unwrap_or_else(|| panic!("cargo built no executable {}", self.name())).1
    }

    /// Runs the program to its end.
    pub fn run(self, args: &[&str]) -> Output {
        Command::new(self.path())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.path().display()))
    }
}

/// Lets this process, and so its children, have as many descriptors as the system allows: a crowd of clients needs more
/// than the usual 1,024.
#[expect(unsafe_code, reason = "std has no resource limits")]
pub fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a valid pointer to a limit that lives on this frame.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Builds both programs; `None` when that fails, which is told once, by cargo.
fn build() -> Option<Vec<(String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "-p", "geodns", "-p", "edge-cache", "--bins"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let programs = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            let path = PathBuf::from(message["executable"].as_str()?);
            Some((name, path))
        })
        .collect();
    Some(programs)
}

/// The signals that tests send.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Read the configuration again.
    Hup,
    /// Finish what is in hand and end.
    Term,
    /// End now.
    Kill,
    /// Freeze: sockets stay open, nobody answers.
    Stop,
    /// Thaw.
    Cont,
}

/// A running child whose output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` with both outputs appended to `log`.
    pub fn start(program: &Path, args: &[&str], log: &Path) -> Self {
        Self::start_with(program, args, &[], log)
    }

    /// The same with these variables in its environment.
    pub fn start_with(
        program: &Path,
        args: &[&str],
        variables: &[(&str, PathBuf)],
        log: &Path,
    ) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(args)
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self { child }
    }

    /// Sends a signal. A child that already ended is left alone.
    #[expect(unsafe_code, reason = "std sends only SIGKILL")]
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_some() {
            return;
        }
        let number = match signal {
            Signal::Hup => libc::SIGHUP,
            Signal::Term => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
            Signal::Stop => libc::SIGSTOP,
            Signal::Cont => libc::SIGCONT,
        };
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill takes two integers; the child was not reaped yet, so the id is still its own.
        let result = unsafe { libc::kill(pid, number) };
        assert_eq!(result, 0, "cannot signal process {pid}");
    }

    /// The exit status, once there is one.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait::within(limit, "a process to end", || self.exited())
    }

    /// SIGTERM, and SIGKILL for one that does not listen.
    pub fn end(&mut self, limit: Duration) {
        self.signal(Signal::Term);
        if wait::try_within(limit, || self.exited()).is_none() {
            self.signal(Signal::Kill);
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::Cont);
        self.signal(Signal::Kill);
        let _ = self.child.wait();
    }
}
