//! The origin that a node under test has: one large object, and any number of small ones. Each byte tells its place.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The bytes of every body: those at an offset are the pattern's at the offset modulo its length.
pub(crate) struct Pattern(Vec<u8>);

const PERIOD: usize = (1 << 20) + 7;
/// What is given of a body at once, at most.
pub(crate) const PIECE: usize = 64 << 10;

impl Pattern {
    /// The same at every call.
    pub(crate) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let once: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let start = once.get(..PIECE).unwrap_or_default().to_vec();
        Self([once, start].concat())
    }

    /// At most `length` bytes from an offset on.
    pub(crate) fn at(&self, offset: u64, length: u64) -> &[u8] {
        let from = usize::try_from(offset % PERIOD as u64).unwrap_or(0);
        let length = usize::try_from(length).unwrap_or(PIECE).min(PIECE);
        self.0.get(from..from + length).unwrap_or_default()
    }
}

/// The length of a small object.
pub(crate) fn object_size(id: u64) -> u64 {
    (1 + id % 63) << 10
}

/// An origin of one large object and any number of small ones, on a thread of its own.
pub(crate) fn start(pattern: Arc<Pattern>, length: u64) -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                let pattern = Arc::clone(&pattern);
                // A connection that the node gives up is no failure.
                tokio::spawn(async move { serve(stream, &pattern, length).await.ok() });
            }
            #[expect(unreachable_code, reason = "says what the block's type is")]
            anyhow::Ok(())
        })
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, pattern: &Pattern, length: u64) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < 16_384, "no head");
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let path = text.split(' ').nth(1).context("no path")?.to_owned();
        let size = match path.strip_prefix("/o/") {
            Some(id) => object_size(id.parse()?),
            None => length,
        };
        let range = text.split("range: bytes=").nth(1).and_then(|rest| rest.split("\r\n").next());
        let (start, end) = match range.and_then(|range| range.split_once('-')) {
            None => (0, size),
            Some((start, end)) => {
                let start: u64 = start.parse()?;
                (start, end.parse::<u64>().map_or(size, |end| (end + 1).min(size)))
            }
        };
        if start >= end {
            bail!("a range of nothing: {range:?}");
        }
        let mut answer = match range {
            Some(_) => format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{size}\r\n",
                end - 1
            ),
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        write!(
            answer,
            "Content-Length: {}\r\nETag: \"1\"\r\nAccept-Ranges: bytes\r\nCache-Control: max-age=86400\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            end - start
        )?;
        stream.write_all(answer.as_bytes()).await?;
        let mut at = start;
        while at < end {
            let piece = pattern.at(at, end - at);
            stream.write_all(piece).await?;
            at += piece.len() as u64;
        }
    }
}
