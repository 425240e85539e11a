//! Content on its way out over HTTP/2, to clients and to upstreams alike: as fast as the other side opens its window.

use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;
use tokio::time::timeout;

use super::backlog::Backlog;
use super::request_body::is_worth_sending;

/// What a stream claims of the connection's window at once.
const PIECE: usize = 64 << 10;

/// What can be sent.
pub(super) trait Outflow: Body<Data = Bytes> {
    /// The other side takes nothing for now: what can be had again is let go.
    fn rest(self: Pin<&mut Self>) {}
}

/// Sends content to its end, or until the other side wants no more of it. What breaks off resets the stream with `broken`:
/// it must not look whole. `patience`: for how long the other side may open no window. `backlog` is told what goes out.
pub(super) async fn send(
    mut stream: SendStream<Bytes>,
    body: impl Outflow,
    patience: Option<Duration>,
    broken: Reason,
    backlog: Option<&Backlog>,
) {
    let mut body = pin!(body);
    loop {
        // What we store is not looked for before there is a window: nobody holds it meanwhile. A claim of one byte takes
        // nothing from other streams.
        if backlog.is_some() && body.size_hint().exact().is_some_and(|left| left > 0) {
            stream.reserve_capacity(1);
            if stream.capacity() == 0 {
                body.as_mut().rest();
            }
            match opened(&mut stream, patience).await {
                Opened::Room(_) => {}
                Opened::Gone => return,
                Opened::Late => return stream.send_reset(Reason::CANCEL),
            }
        }
        let frame = tokio::select! {
            biased;
            _ = std::future::poll_fn(|cx| stream.poll_reset(cx)) => return,
            frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)) => frame,
        };
        let data = match frame {
            None => {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
            Some(Err(_)) => return stream.send_reset(broken),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) if is_worth_sending(&trailers) => {
                        let _ = stream.send_trailers(trailers);
                        return;
                    }
                    _ => continue,
                },
            },
        };
        let end = body.is_end_stream();
        match send_data(&mut stream, data, end, patience, backlog).await {
            Sent::All if !end => {}
            Sent::All | Sent::Gone => return,
            Sent::Late => return stream.send_reset(Reason::CANCEL),
        }
    }
}

/// How far data has come.
enum Sent {
    /// It is on its way.
    All,
    /// The stream has ended.
    Gone,
    /// The other side has opened no window for too long.
    Late,
}

/// Sends data as the window opens: what h2 holds could go out, so that the exchange counts as one under way for as long as
/// the other side has to take of it, and one that takes nothing holds no memory for long.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
    patience: Option<Duration>,
    backlog: Option<&Backlog>,
) -> Sent {
    while !data.is_empty() {
        // A small claim on the connection's window: the rest of it is for streams whose data is there, too.
        stream.reserve_capacity(data.len().min(PIECE));
        let piece = match opened(stream, patience).await {
            Opened::Room(capacity) => data.split_to(capacity.min(data.len())),
            Opened::Gone => return Sent::Gone,
            Opened::Late => return Sent::Late,
        };
        let last = end && data.is_empty();
        if let Some(backlog) = backlog {
            backlog.add(piece.len());
        }
        if stream.send_data(piece, last).is_err() {
            return Sent::Gone;
        }
        if last {
            return Sent::All;
        }
    }
    match end && stream.send_data(Bytes::new(), true).is_err() {
        true => Sent::Gone,
        false => Sent::All,
    }
}

/// What has become of the wait for a window.
enum Opened {
    Room(usize),
    Gone,
    Late,
}

async fn opened(stream: &mut SendStream<Bytes>, patience: Option<Duration>) -> Opened {
    let opened = match patience {
        Some(patience) => timeout(patience, capacity(stream)).await,
        None => Ok(capacity(stream).await),
    };
    match opened {
        Ok(Some(capacity)) => Opened::Room(capacity),
        Ok(None) => Opened::Gone,
        Err(_) => Opened::Late,
    }
}

/// Waits until something may be sent, and how much; none when the stream is gone.
async fn capacity(stream: &mut SendStream<Bytes>) -> Option<usize> {
    loop {
        let capacity = stream.capacity();
        if capacity > 0 {
            return Some(capacity);
        }
        std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
    }
}
