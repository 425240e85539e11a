//! An origin that speaks HTTP/2 without TLS (prior knowledge) and does to its streams what the test says: answers,
//! holds, refuses, goes away, dies.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// A request as the origin read it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// `:scheme`.
    pub scheme: String,
    /// `:authority`.
    pub authority: String,
    /// The path.
    pub path: String,
    /// Which of the origin's connections it came on, counted from 1.
    pub connection: usize,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// 200 with this body, fresh for a minute.
    Answer(&'static str),
    /// 200 with this body, when the test lets it go.
    Hold(&'static str),
    /// REFUSED_STREAM: it was not acted on.
    Refuse,
    /// A head that announces ten bytes, then INTERNAL_ERROR.
    Break,
    /// 200 with this body, and GOAWAY for those to come.
    GoAway(&'static str),
    /// The connection ends, without a word.
    Die,
    /// 103, 102, 103 at once, and 200 with this body when the test lets it go.
    Hint(&'static str),
    /// 103 without end.
    Flood,
    /// 100 (Continue), and 200 with the content of the request.
    Echo,
    /// A head that announces ten bytes, then this instead, and the end.
    Lie(&'static str),
}

#[derive(Default)]
struct Seen {
    requests: Vec<Asked>,
    connections: usize,
    running: usize,
    most_running: usize,
}

type Answers = Arc<dyn Fn(&Asked) -> Act + Send + Sync>;

/// A running origin.
pub struct StreamOrigin {
    addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    gate: watch::Sender<bool>,
}

impl StreamOrigin {
    /// Listens on a free port; `streams` may run at once on each connection.
    pub fn start(streams: u32, answers: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (gate, opened) = watch::channel(false);
        let (answers, log): (Answers, _) = (Arc::new(answers), Arc::clone(&seen));
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                // The test is over when nobody holds the gate.
                let mut over = opened.clone();
                loop {
                    let stream = tokio::select! {
                        accepted = listener.accept() => accepted.unwrap().0,
                        _ = async { while over.changed().await.is_ok() {} } => return,
                    };
                    let serving = Serving {
                        connection: {
                            let mut seen = lock(&log);
                            seen.connections += 1;
                            seen.connections
                        },
                        seen: Arc::clone(&log),
                        answers: Arc::clone(&answers),
                        gate: opened.clone(),
                    };
                    tokio::spawn(async move { serving.serve(stream, streams).await });
                }
            });
        });
        Self { addr, seen, gate }
    }

    /// `http://address:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Lets those go that are held, and all that come.
    pub fn release(&self) {
        self.gate.send_replace(true);
    }

    /// The requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Asked> {
        lock(&self.seen).requests.clone()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// How many requests run now, and the most that ran at once, on all connections.
    pub fn running(&self) -> (usize, usize) {
        let seen = lock(&self.seen);
        (seen.running, seen.most_running)
    }
}

#[derive(Clone)]
struct Serving {
    connection: usize,
    seen: Arc<Mutex<Seen>>,
    answers: Answers,
    gate: watch::Receiver<bool>,
}

/// What a request does to its connection.
enum Order {
    GoAway,
    Die,
}

impl Serving {
    async fn serve(self, stream: TcpStream, streams: u32) {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(streams);
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        let (orders, mut ordered) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                accepted = connection.accept() => {
                    let Some(Ok((request, respond))) = accepted else { return };
                    let (serving, orders) = (self.clone(), orders.clone());
                    tokio::spawn(async move { serving.answer(request, respond, orders).await });
                }
                order = ordered.recv() => match order {
                    Some(Order::GoAway) => connection.graceful_shutdown(),
                    Some(Order::Die) | None => return,
                },
            }
        }
    }

    async fn answer(
        mut self,
        request: http::Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
        orders: mpsc::UnboundedSender<Order>,
    ) {
        let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let asked = Asked {
            method: request.method().to_string(),
            scheme: text(request.uri().scheme_str()),
            authority: text(request.uri().authority().map(http::uri::Authority::as_str)),
            path: request.uri().path().to_owned(),
            connection: self.connection,
        };
        let act = (self.answers)(&asked);
        let is_head = asked.method == "HEAD";
        {
            let mut seen = lock(&self.seen);
            seen.requests.push(asked);
            seen.running += 1;
            seen.most_running = seen.most_running.max(seen.running);
        }
        let head = || Response::builder().header("cache-control", "max-age=60");
        let taken;
        let body = match act {
            Act::Answer(body) => Some(body.as_bytes()),
            Act::Hold(body) => {
                let _ = self.gate.wait_for(|open| *open).await;
                Some(body.as_bytes())
            }
            Act::Hint(body) => {
                for status in [103, 102, 103] {
                    let _ = respond.send_informational(early(status));
                }
                let _ = self.gate.wait_for(|open| *open).await;
                Some(body.as_bytes())
            }
            Act::Flood => {
                for _ in 0..1000 {
                    let _ = respond.send_informational(early(103));
                }
                let _ = self.gate.wait_for(|open| *open).await;
                None
            }
            Act::Echo => {
                let _ = respond.send_informational(early(100));
                taken = content(request.into_body()).await;
                Some(taken.as_slice())
            }
            Act::Lie(body) => {
                let head = head().header("content-length", "10").body(()).unwrap();
                if let Ok(mut stream) = respond.send_response(head, false) {
                    let _ = stream.send_data(Bytes::from_static(body.as_bytes()), true);
                }
                None
            }
            Act::GoAway(body) => {
                let _ = orders.send(Order::GoAway);
                Some(body.as_bytes())
            }
            Act::Refuse => {
                respond.send_reset(Reason::REFUSED_STREAM);
                None
            }
            Act::Break => {
                let head = head().header("content-length", "10").body(()).unwrap();
                if let Ok(mut stream) = respond.send_response(head, false) {
                    let _ = stream.send_data(Bytes::from_static(b"01234"), false);
                    stream.send_reset(Reason::INTERNAL_ERROR);
                }
                None
            }
            Act::Die => {
                let _ = orders.send(Order::Die);
                None
            }
        };
        lock(&self.seen).running -= 1;
        if let Some(body) = body {
            let head = head().header("content-length", body.len()).body(()).unwrap();
            if let Ok(mut stream) = respond.send_response(head, body.is_empty() || is_head)
                && !body.is_empty()
                && !is_head
            {
                let _ = stream.send_data(Bytes::copy_from_slice(body), true);
            }
        }
    }
}

/// An interim response; 103 has a hint.
fn early(status: u16) -> Response<()> {
    let mut builder = Response::builder().status(status);
    if status == 103 {
        builder = builder.header("link", "</a.css>; rel=preload");
    }
    builder.body(()).unwrap()
}

/// A request's content, as far as it comes.
async fn content(mut stream: h2::RecvStream) -> Vec<u8> {
    let mut taken = Vec::new();
    while let Some(Ok(data)) = stream.data().await {
        let _ = stream.flow_control().release_capacity(data.len());
        taken.extend_from_slice(&data);
    }
    taken
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
