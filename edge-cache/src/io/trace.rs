//! Access logs from files: plain, gzip or Zstandard (by their first bytes, whatever their names), or standard input as
//! `-`; line by line with bounded memory, for [`crate::trace::Reader`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder;

use crate::trace::workload::Workload;
use crate::trace::{Format, LONGEST_LINE, Reader, Request};

/// A log that is being read.
pub struct Log {
    lines: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    size: Option<u64>,
    read: Arc<AtomicU64>,
}

impl Log {
    /// Opens a log.
    ///
    /// # Errors
    /// It cannot be read, or is compressed in another way.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::of(io::stdin(), None);
        }
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::other("it is a folder: name a file"));
        }
        let size = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
        Self::of(file, size)
    }

    /// From any bytes, `size` of them where that is known.
    ///
    /// # Errors
    /// They cannot be read, or are compressed in another way.
    pub fn of(bytes: impl Read + Send + 'static, size: Option<u64>) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let mut bytes = Counted { bytes, read: Arc::clone(&read) };
        let mut magic = Vec::new();
        bytes.by_ref().take(6).read_to_end(&mut magic)?;
        let whole = BufReader::with_capacity(1 << 18, Cursor::new(magic.clone()).chain(bytes));
        let lines: Box<dyn BufRead + Send> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => {
                Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(whole)))
            }
            // A frame, or one to skip.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Box::new(BufReader::with_capacity(1 << 18, Decoder::with_buffer(whole)?))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Err(other("xz", "xzcat")),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => return Err(other("bzip2", "bzcat")),
            _ => Box::new(whole),
        };
        Ok(Self { lines, line: Vec::new(), size, read })
    }

    /// Bytes of the file, where it is one.
    pub const fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes of it that have been read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Gives every request of the log to `take`, until that returns `false`.
    ///
    /// # Errors
    /// The rest cannot be read; what was given is good.
    pub fn requests(
        &mut self,
        reader: &mut Reader,
        mut take: impl FnMut(&Request<'_>, &Self) -> bool,
    ) -> io::Result<()> {
        loop {
            let mut line = std::mem::take(&mut self.line);
            line.clear();
            let found = self.next_line(&mut line);
            let goes_on = match found {
                Ok(Line::End) => return Ok(()),
                Ok(Line::Whole) => {
                    let request = String::from_utf8_lossy(&line);
                    reader.line(&request).is_none_or(|request| take(&request, self))
                }
                Ok(Line::Beginning) => {
                    line.truncate(100);
                    reader.skip_long(&String::from_utf8_lossy(&line));
                    true
                }
                Err(error) => return Err(error),
            };
            self.line = line;
            if !goes_on {
                return Ok(());
            }
        }
    }

    fn next_line(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        let bound = LONGEST_LINE as u64 + 2;
        if self.lines.by_ref().take(bound).read_until(b'\n', line)? == 0 {
            return Ok(Line::End);
        }
        if line.last() == Some(&b'\n') || (line.len() as u64) < bound {
            return Ok(Line::Whole);
        }
        self.lines.skip_until(b'\n')?;
        Ok(Line::Beginning)
    }
}

/// A log that has been read.
pub struct Loaded {
    /// Its requests.
    pub workload: Workload,
    /// What became of its lines.
    pub reader: Reader,
    /// Why the rest of it could not be read.
    pub cut: Option<String>,
}

/// Reads a log whole. `progress` is told of each step how many bytes of how many have been read.
///
/// # Errors
/// It cannot be read, or has no request.
pub fn load(
    path: &Path,
    format: Option<Format>,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<Loaded, String> {
    let shown = path.display();
    let mut log = Log::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut reader = Reader::new(format);
    let mut workload = Workload::default();
    let mut count = 0u32;
    let end = log.requests(&mut reader, |request, log| {
        workload.push(request);
        count = count.wrapping_add(1);
        if count.is_multiple_of(4096) {
            progress(log.read(), log.size());
        }
        true
    });
    workload.finish();
    let cut = end.err().map(|error| error.to_string());
    if workload.records().is_empty() {
        return Err(nothing(path, &reader, cut.as_deref()));
    }
    Ok(Loaded { workload, reader, cut })
}

/// Does one thing for each of these, as many at once as there are cores; the results in their order.
///
/// # Errors
/// One of them has failed.
pub fn in_parallel<T: Sync, R: Send>(
    all: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Result<Vec<R>, String> {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(all.len()))
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                        let Some(one) = all.get(at) else { return done };
                        done.push((at, work(one)));
                    }
                })
            })
            .collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.collect::<Result<Vec<_>, _>>().map(|done| done.into_iter().flatten().collect())
    })
    .map_err(|_| "a simulation has failed".to_owned())?;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Writes a file, and makes its folder.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}

/// There is no request in a log, and why.
pub fn nothing(path: &Path, reader: &Reader, cut: Option<&str>) -> String {
    let counts = reader.counts();
    let mut why = format!(
        "{}: no request in {} lines that a cache could answer",
        path.display(),
        counts.lines
    );
    if let Some(cut) = cut {
        why += &format!("; then it cannot be read: {cut}");
    }
    for broken in reader.broken() {
        why += &format!("\nline {}: {}: {}", broken.line, broken.why, broken.text);
    }
    why
}

enum Line {
    End,
    Whole,
    /// Of one too long.
    Beginning,
}

fn other(how: &str, program: &str) -> io::Error {
    io::Error::other(format!("it is compressed by {how}: give it as `-`, through `{program}`"))
}

struct Counted<R> {
    bytes: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn targets(bytes: Vec<u8>) -> (Vec<String>, Reader, io::Result<()>) {
        let mut reader = Reader::default();
        let mut targets = Vec::new();
        let mut log = Log::of(Cursor::new(bytes), None).unwrap();
        let end = log.requests(&mut reader, |request, _| {
            targets.push(request.target.to_string());
            true
        });
        (targets, reader, end)
    }

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn plain_and_compressed_logs_are_the_same() {
        let text = b"1,/a,5\n2,/b,5\r\n\n3,/c,5";
        let zst = zstd::encode_all(&text[..], 1).unwrap();
        // Rotated logs are often put together: two members, two frames.
        let twice = [gz(&text[..7]), gz(&text[7..])].concat();
        for bytes in [text.to_vec(), gz(text), zst, twice] {
            let (targets, reader, end) = targets(bytes);
            assert_eq!(targets, ["/a", "/b", "/c"]);
            assert_eq!((reader.counts().lines, reader.counts().blank), (4, 1));
            end.unwrap();
        }
        assert_eq!(targets(Vec::new()).0.len(), 0);
    }

    #[test]
    fn what_comes_before_the_damage_is_used() {
        let lines: String = (0..5000).map(|n| format!("{n},/{n},5\n")).collect();
        let mut bytes = gz(lines.as_bytes());
        bytes.truncate(bytes.len() / 2);
        let (found, _, end) = targets(bytes);
        assert!(found.len() > 1000, "{}", found.len());
        end.unwrap_err();
    }

    #[test]
    fn a_line_without_end_is_skipped() {
        let mut text = b"1,/a,5\n2,/".to_vec();
        text.resize(3 * LONGEST_LINE, b'x');
        text.extend(b",5\n3,/c,5\n");
        let (found, reader, end) = targets(text);
        assert_eq!(found, ["/a", "/c"]);
        assert_eq!((reader.counts().lines, reader.counts().broken), (3, 1));
        assert_eq!(reader.broken()[0].line, 2);
        end.unwrap();
    }

    #[test]
    fn other_compressions_are_named() {
        let error = Log::of(Cursor::new(b"\xfd7zXZ\0...".to_vec()), None).err().unwrap();
        assert_eq!(error.to_string(), "it is compressed by xz: give it as `-`, through `xzcat`");
        let bytes = (0..200u8).chain(0..=255).collect();
        let (found, reader, _) = targets(bytes);
        assert_eq!((found.len(), reader.counts().requests), (0, 0));
    }
}
