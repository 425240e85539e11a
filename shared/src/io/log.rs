//! Logs: diagnostics for people on standard error, and JSON lines that never hold up who writes them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::LogTarget;
use crate::metrics::Counter;

/// Diagnostics to standard error: `level` is `error`, `warn`, `info`, `debug`, `trace` or a filter of `tracing`.
///
/// # Errors
/// Why `level` cannot be used.
pub fn init(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("`{level}` is not a log level: {error}"))?;
    let layer = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call (tests in one process) keeps the first one's settings.
    let _ = layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init();
    Ok(())
}

/// Lines that wait for the writer at most; more are dropped and counted.
const QUEUE: usize = 8192;
/// How long an ending program waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

enum Message {
    Line(Vec<u8>),
    Reopen,
}

/// A log of JSON lines. Cheap to clone; the last clone that goes ends the writer after its last line.
#[derive(Clone)]
pub struct JsonLog(Option<Arc<Inner>>);

struct Inner {
    /// Some until the log is dropped, as is the writer.
    sender: Option<SyncSender<Message>>,
    dropped: Counter,
    writer: Option<JoinHandle<()>>,
    /// Closed when the writer ends.
    ended: Mutex<Receiver<()>>,
}

impl Inner {
    fn send(&self, message: Message) -> Result<(), TrySendError<Message>> {
        match &self.sender {
            Some(sender) => sender.try_send(message),
            None => Err(TrySendError::Disconnected(message)),
        }
    }
}

impl JsonLog {
    /// A log that goes nowhere.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens the log and starts its writer. `dropped` counts the lines that found the queue full or could not be
    /// written.
    pub fn open(target: &LogTarget, dropped: Counter) -> io::Result<Self> {
        let path = match target {
            LogTarget::Off => return Ok(Self::off()),
            LogTarget::Stdout => None,
            LogTarget::File(path) => Some(path.clone()),
        };
        let sink = Sink::open(path)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let lost = dropped.clone();
        let (ending, ended) = sync_channel(0);
        let writer = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let _ending: SyncSender<()> = ending;
            write_lines(sink, &receiver, &lost);
        })?;
        let (sender, writer, ended) = (Some(sender), Some(writer), Mutex::new(ended));
        Ok(Self(Some(Arc::new(Inner { sender, dropped, writer, ended }))))
    }

    /// Whether lines go anywhere: spares making them.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands over one line, without its line end. Never waits.
    pub fn write(&self, mut line: Vec<u8>) {
        let Some(inner) = &self.0 else { return };
        line.push(b'\n');
        if inner.send(Message::Line(line)).is_err() {
            inner.dropped.inc();
        }
    }

    /// Opens the file anew, after log rotation has moved it.
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            // A full queue: the next reload does it.
            let _ = inner.send(Message::Reopen);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when the sender is gone, having written everything; one that cannot write is left behind.
        self.sender = None;
        if let Some(writer) = self.writer.take()
            && !matches!(
                self.ended
                    .get_mut()
                    .unwrap_or_else(PoisonError::into_inner)
                    .recv_timeout(LAST_LINES),
                Err(RecvTimeoutError::Timeout)
            )
        {
            let _ = writer.join();
        }
    }
}

struct Sink {
    path: Option<PathBuf>,
    out: BufWriter<Box<dyn Write + Send>>,
}

impl Sink {
    fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match &path {
            None => Box::new(io::stdout()),
            Some(path) => {
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir)?;
                }
                Box::new(append(path)?)
            }
        };
        Ok(Self { path, out: BufWriter::with_capacity(64 << 10, out) })
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.out.flush()?;
        if let Some(path) = &self.path {
            self.out = BufWriter::with_capacity(64 << 10, Box::new(append(path)?));
        }
        Ok(())
    }
}

fn append(path: &std::path::Path) -> io::Result<File> {
    // A pipe opened for writing alone waits for its reader.
    let is_pipe = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    OpenOptions::new().create(true).append(true).read(is_pipe).open(path)
}

fn write_lines(mut sink: Sink, receiver: &Receiver<Message>, lost: &Counter) {
    loop {
        // What is written is flushed as soon as nothing more waits.
        let message = match receiver.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Empty) => {
                if sink.out.flush().is_err() {
                    lost.inc();
                }
                match receiver.recv() {
                    Ok(message) => message,
                    Err(_) => return,
                }
            }
            Err(TryRecvError::Disconnected) => {
                let _ = sink.out.flush();
                return;
            }
        };
        match message {
            Message::Line(line) => {
                if sink.out.write_all(&line).is_err() {
                    lost.inc();
                }
            }
            Message::Reopen => {
                if let Err(error) = sink.reopen() {
                    tracing::warn!(%error, "a log could not be opened anew; the old file goes on");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lines_are_in_the_file_when_the_last_handle_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/access.log");
        let dropped = Counter::default();
        let log = JsonLog::open(&LogTarget::File(path.clone()), dropped.clone()).unwrap();
        let clone = log.clone();
        for n in 0..1000 {
            clone.write(format!("{{\"n\":{n}}}").into_bytes());
        }
        drop((log, clone));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count() as u64 + dropped.get(), 1000);
        assert!(text.starts_with("{\"n\":0}\n"));
    }

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = JsonLog::open(&LogTarget::File(path.clone()), Counter::default()).unwrap();
        log.write(b"old".to_vec());
        // The writer has opened the file already; what it writes goes to the moved one until it is told.
        std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
        log.reopen();
        log.write(b"new".to_vec());
        drop(log);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("access.log.1")).unwrap(), "old\n");
    }

    /// A pipe that nobody reads takes what its buffer holds; then lines are lost and counted, and nobody waits.
    #[test]
    fn a_pipe_that_nobody_reads_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let dropped = Counter::default();
        let log = JsonLog::open(&LogTarget::File(path), dropped.clone()).unwrap();
        for _ in 0..3 * QUEUE {
            log.write(vec![b'x'; 100]);
        }
        assert!(dropped.get() >= QUEUE as u64, "{}", dropped.get());
        drop(log);
    }

    #[test]
    fn off_is_off() {
        let log = JsonLog::open(&LogTarget::Off, Counter::default()).unwrap();
        assert!(!log.is_on());
        log.write(b"nowhere".to_vec());
    }
}
