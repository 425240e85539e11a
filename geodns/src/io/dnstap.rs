//! The dnstap stream: a queue that answering never waits for, and one thread that writes it to a file or to a
//! collector's socket. What a message looks like is [`crate::dnstap`]'s.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shared::config::DnstapTarget;
use shared::metrics::Counter;
use shared::time::UnixMillis;

use crate::answer::Client;
use crate::dnstap::{Control, Exchange, Identity, MAX_CONTROL_BYTES, frames};

/// Exchanges that wait for the writer at most, and their octets; more are dropped and counted.
const QUEUE: usize = 8192;
const QUEUE_BYTES: usize = 16 << 20;
/// Octets gathered for one write.
const WRITE_AT: usize = 64 << 10;
/// How long a collector may take for a step of the handshake, and for taking what is written.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to reach a collector.
const RETRY: Duration = Duration::from_secs(1);
/// How long an ending program waits for its last messages to be written.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

enum Message {
    /// The frames of one exchange.
    Frames(Vec<u8>),
    Reopen,
}

/// Where exchanges are told. Cheap to clone; the last clone that goes ends the stream.
#[derive(Clone, Default)]
pub(super) struct Tap(Option<Arc<Inner>>);

struct Inner {
    /// Some until the tap is dropped.
    sender: Option<SyncSender<Message>>,
    identity: Identity,
    queued: Arc<AtomicUsize>,
    dropped: Counter,
    /// Closed when the writer ends.
    ended: Mutex<Receiver<()>>,
}

impl Tap {
    /// Opens the stream and starts its writer. `dropped` counts the exchanges that found the queue full or could not be
    /// written. A collector that is not there yet is waited for by the writer alone.
    pub(super) fn open(
        target: &DnstapTarget,
        identity: Identity,
        dropped: Counter,
    ) -> io::Result<Self> {
        let sink = match target {
            DnstapTarget::Off => return Ok(Self(None)),
            DnstapTarget::File(path) => Sink::File(StreamFile::open(path)?),
            DnstapTarget::Socket(path) => Sink::Socket(path.clone()),
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let (ending, ended) = sync_channel(0);
        let queued = Arc::new(AtomicUsize::new(0));
        let queue = Queue { receiver, queued: Arc::clone(&queued), lost: dropped.clone() };
        std::thread::Builder::new().name("dnstap".to_owned()).spawn(move || {
            let _ending: SyncSender<()> = ending;
            match sink {
                Sink::File(file) => write_file(file, &queue),
                Sink::Socket(path) => write_socket(&path, &queue),
            }
        })?;
        let (sender, ended) = (Some(sender), Mutex::new(ended));
        Ok(Self(Some(Arc::new(Inner { sender, identity, queued, dropped, ended }))))
    }

    /// Whether anybody is told.
    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells of an exchange that is being answered now; an empty response was not sent. Never waits.
    #[cold]
    pub(super) fn tell(
        &self,
        client: &Client,
        server: Option<SocketAddr>,
        asked: UnixMillis,
        query: &[u8],
        response: &[u8],
    ) {
        let Some(inner) = &self.0 else { return };
        let asked = Duration::from_millis(asked.0);
        let answered = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(asked).max(asked);
        let exchange = Exchange { client, server, asked, answered, query, response };
        inner.send(frames(&inner.identity, &exchange));
    }

    /// Opens the file anew, after log rotation has moved it.
    pub(super) fn reopen(&self) {
        if let Some(sender) = self.0.as_ref().and_then(|inner| inner.sender.as_ref()) {
            // A full queue: the next reload does it.
            let _ = sender.try_send(Message::Reopen);
        }
    }
}

impl Inner {
    fn send(&self, frames: Vec<u8>) {
        let length = frames.len();
        let before = self.queued.fetch_add(length, Ordering::Relaxed);
        let sent = before + length <= QUEUE_BYTES
            && self.sender.as_ref().is_some_and(|s| s.try_send(Message::Frames(frames)).is_ok());
        if !sent {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            self.dropped.inc();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when the sender is gone, having written everything; one that cannot write is left behind.
        self.sender = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(LAST_MESSAGES);
    }
}

/// The writer's end of the queue.
struct Queue {
    receiver: Receiver<Message>,
    queued: Arc<AtomicUsize>,
    lost: Counter,
}

/// What comes next out of the queue.
enum Next {
    Message(Message),
    /// Nothing waits: what was gathered should be written.
    Idle,
    /// No more will come.
    End,
}

impl Queue {
    fn taken(&self, message: Message) -> Next {
        if let Message::Frames(frames) = &message {
            self.queued.fetch_sub(frames.len(), Ordering::Relaxed);
        }
        Next::Message(message)
    }

    fn poll(&self) -> Next {
        match self.receiver.try_recv() {
            Ok(message) => self.taken(message),
            Err(TryRecvError::Empty) => Next::Idle,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }

    fn wait(&self) -> Next {
        self.receiver.recv().map_or(Next::End, |message| self.taken(message))
    }

    /// Drops what comes during `pause`. Whether more can come.
    fn drop_during(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match self.receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(message) => {
                    if matches!(message, Message::Frames(_)) {
                        self.lost.inc();
                    }
                    self.taken(message);
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}

enum Sink {
    File(StreamFile),
    Socket(PathBuf),
}

/// Frames gathered for one write, and of how many exchanges they are.
#[derive(Default)]
struct Gathered {
    octets: Vec<u8>,
    exchanges: u64,
}

impl Gathered {
    fn add(&mut self, frames: &[u8]) {
        self.octets.extend_from_slice(frames);
        self.exchanges += 1;
    }

    fn is_full(&self) -> bool {
        self.octets.len() >= WRITE_AT
    }

    /// Writes what was gathered; what cannot be written is lost and counted.
    fn write(
        &mut self,
        lost: &Counter,
        write: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.octets.is_empty() {
            return Ok(());
        }
        let written = write(&self.octets);
        if written.is_err() {
            lost.add(self.exchanges);
        }
        self.octets.clear();
        self.exchanges = 0;
        written
    }
}

/// A stream in a file. It is one whole stream at any time: an interrupted one is taken up where it ended.
struct StreamFile {
    path: PathBuf,
    file: File,
    /// Where its last whole frame ends; none for a pipe.
    end: Option<u64>,
}

impl StreamFile {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let options = || {
            let mut options = OpenOptions::new();
            // Reading, too: a pipe opened for writing alone waits for its reader.
            options.create(true).truncate(false).read(true).write(true);
            options
        };
        let mut file = options().open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            file.write_all(&Control::Start.frame())?;
            return Ok(Self { path: path.to_owned(), file, end: None });
        }
        let end = match meta.len() {
            0 => 0,
            length => last_frame(&mut BufReader::new(&file), length)?,
        };
        let mut stream = Self { path: path.to_owned(), file, end: Some(end) };
        stream.file.set_len(end)?;
        stream.file.seek(SeekFrom::Start(end))?;
        if end == 0 {
            stream.write(&Control::Start.frame())?;
        }
        Ok(stream)
    }

    /// Writes whole frames. When that fails half-way the file is cut back to its last whole one.
    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(frames);
        if let Some(end) = &mut self.end {
            match &written {
                Ok(()) => *end += frames.len() as u64,
                Err(_) => {
                    self.file.set_len(*end)?;
                    self.file.seek(SeekFrom::Start(*end))?;
                }
            }
        }
        written
    }

    /// Whether another file has taken this one's place.
    fn was_moved(&self) -> bool {
        let same = |meta: std::fs::Metadata| {
            self.file
                .metadata()
                .is_ok_and(|ours| (ours.dev(), ours.ino()) == (meta.dev(), meta.ino()))
        };
        !std::fs::metadata(&self.path).is_ok_and(same)
    }
}

/// Where the last whole data frame of a stream ends: an end frame or half a frame after it is not counted.
fn last_frame(file: &mut BufReader<&File>, length: u64) -> io::Result<u64> {
    let foreign = || {
        let why = "the file is no dnstap stream: move it away, or name another one";
        io::Error::new(io::ErrorKind::InvalidData, why)
    };
    let mut at = 0_u64;
    loop {
        let mut head = [0; 4];
        if at + 4 > length {
            return if at == 0 { Err(foreign()) } else { Ok(at) };
        }
        file.read_exact(&mut head)?;
        let payload = u64::from(u32::from_be_bytes(head));
        if payload > 0 {
            if at == 0 {
                return Err(foreign());
            }
            if at + 4 + payload > length {
                return Ok(at);
            }
            at += 4 + payload;
            file.seek_relative(i64::try_from(payload).unwrap_or(i64::MAX))?;
            continue;
        }
        match read_control(file) {
            Ok((Control::Start, true, octets)) if at == 0 => at = octets,
            _ if at == 0 => return Err(foreign()),
            // The end, or half of it.
            _ => return Ok(at),
        }
    }
}

/// Reads a control frame after its escape: what it is, whether it is about our content, and its octets, escape
/// included.
fn read_control(from: &mut impl Read) -> io::Result<(Control, bool, u64)> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a broken control frame");
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head) as usize;
    let mut payload = [0; MAX_CONTROL_BYTES];
    let payload = payload.get_mut(..length).ok_or_else(broken)?;
    from.read_exact(payload)?;
    let (control, is_ours) = Control::parse(payload).ok_or_else(broken)?;
    Ok((control, is_ours, 8 + length as u64))
}

fn write_file(mut file: StreamFile, queue: &Queue) {
    let mut gathered = Gathered::default();
    let mut failing = false;
    let mut flush = |file: &mut StreamFile, gathered: &mut Gathered| {
        let written = gathered.write(&queue.lost, |octets| file.write(octets));
        if let (Err(error), false) = (&written, failing) {
            tracing::error!(%error, "the dnstap file cannot be written");
        }
        failing = written.is_err();
    };
    loop {
        let next = match queue.poll() {
            Next::Idle => {
                flush(&mut file, &mut gathered);
                queue.wait()
            }
            next => next,
        };
        match next {
            Next::Message(Message::Frames(frames)) => {
                gathered.add(&frames);
                if gathered.is_full() {
                    flush(&mut file, &mut gathered);
                }
            }
            Next::Message(Message::Reopen) => {
                flush(&mut file, &mut gathered);
                if file.end.is_none() || !file.was_moved() {
                    continue;
                }
                match StreamFile::open(&file.path) {
                    Ok(new) => {
                        let _ = std::mem::replace(&mut file, new).write(&Control::Stop.frame());
                    }
                    Err(error) => tracing::warn!(
                        %error,
                        "the dnstap file could not be opened anew; the old one goes on"
                    ),
                }
            }
            Next::Idle => {}
            Next::End => {
                flush(&mut file, &mut gathered);
                let _ = file.write(&Control::Stop.frame());
                return;
            }
        }
    }
}

/// Writes to a collector for as long as there is one, and looks for it again when it is gone.
fn write_socket(path: &Path, queue: &Queue) {
    let mut told = false;
    loop {
        match connect(path) {
            Ok(stream) => {
                tracing::info!(socket = %path.display(), "dnstap is connected");
                match write_stream(stream, queue) {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "dnstap lost its collector"),
                }
                told = true;
            }
            Err(error) if !told => {
                let socket = path.display();
                tracing::warn!(%error, %socket, "dnstap has no collector; it goes on looking");
                told = true;
            }
            Err(_) => {}
        }
        if !queue.drop_during(RETRY) {
            return;
        }
    }
}

/// Offers our content, hears that it is wanted, begins.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&Control::Ready.frame())?;
    let mut escape = [0; 4];
    stream.read_exact(&mut escape)?;
    match read_control(&mut stream)? {
        (Control::Accept, true, _) if escape == [0; 4] => {
            stream.write_all(&Control::Start.frame())?;
            Ok(stream)
        }
        _ => {
            let why = "the collector does not take dnstap";
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
    }
}

/// Writes until no more comes.
fn write_stream(mut stream: UnixStream, queue: &Queue) -> io::Result<()> {
    let mut gathered = Gathered::default();
    loop {
        let next = match queue.poll() {
            Next::Idle => {
                gathered.write(&queue.lost, |octets| stream.write_all(octets))?;
                queue.wait()
            }
            next => next,
        };
        match next {
            Next::Message(Message::Frames(frames)) => {
                gathered.add(&frames);
                if gathered.is_full() {
                    gathered.write(&queue.lost, |octets| stream.write_all(octets))?;
                }
            }
            Next::Message(Message::Reopen) | Next::Idle => {}
            Next::End => {
                gathered.write(&queue.lost, |octets| stream.write_all(octets))?;
                stream.write_all(&Control::Stop.frame())?;
                stream.set_read_timeout(Some(LAST_MESSAGES / 2))?;
                // It has what it wants; whether it says so changes nothing.
                let _ = stream.read(&mut [0; 64]);
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
