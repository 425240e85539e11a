//! A scripted origin server over raw TCP: what it must be sent, what it answers byte by byte, where it stalls until the
//! test lets it go, where it cuts, and how often it was asked.
//!
//! Every connection has a thread of its own, so that one that is held holds no other. Requests are recorded before they
//! are answered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use socket2::{Domain, Socket, Type};

use crate::wait;

mod gate;

pub use gate::Gate;

/// A request as the origin read it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request target as sent.
    pub target: String,
    /// The fields in order, names as sent.
    pub fields: Vec<(String, String)>,
    /// The decoded body.
    pub body: Vec<u8>,
    /// Which of the origin's connections it came on, counted from 1.
    pub connection: usize,
}

impl Request {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    Close,
}

#[derive(Clone, Debug)]
enum Event {
    Hold(Gate),
    Fin,
    Reset,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    Event(Event),
}

/// One exchange: what the request must look like and what is answered, with its pauses and cuts.
#[derive(Clone, Debug)]
pub struct Script {
    expected: Vec<(String, Option<String>)>,
    raw: Option<Vec<u8>>,
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    framing: Framing,
    date: bool,
    before: Vec<Event>,
    within: Vec<(usize, Event)>,
}

impl Script {
    /// A response with this status and body, framed by Content-Length, dated now.
    pub fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            expected: Vec::new(),
            raw: None,
            status,
            fields: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
            date: true,
            before: Vec::new(),
            within: Vec::new(),
        }
    }

    /// A 200.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200, body)
    }

    /// Exactly these bytes, head and all.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { raw: Some(bytes.into()), ..Self::status(200, "") }
    }

    /// A field of the response.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `Cache-Control`.
    #[must_use]
    pub fn cache_control(self, value: &str) -> Self {
        self.field("Cache-Control", value)
    }

    /// No `Date` of its own.
    #[must_use]
    pub fn undated(mut self) -> Self {
        self.date = false;
        self
    }

    /// Framed by chunks, one for each stretch between two pauses.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Framed by the end of the connection.
    #[must_use]
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Waits at the gate before the first byte.
    #[must_use]
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.before.push(Event::Hold(gate.clone()));
        self
    }

    /// Waits at the gate after the head and this many bytes of the body (or of the raw bytes).
    #[must_use]
    pub fn hold_after(mut self, bytes: usize, gate: &Gate) -> Self {
        self.within.push((bytes, Event::Hold(gate.clone())));
        self
    }

    /// Ends the connection in order (FIN) after the head and this many bytes of the body.
    #[must_use]
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.within.push((bytes, Event::Fin));
        self
    }

    /// Resets the connection (RST) after the head and this many bytes of the body.
    #[must_use]
    pub fn reset_after(mut self, bytes: usize) -> Self {
        self.within.push((bytes, Event::Reset));
        self
    }

    /// Resets the connection without an answer.
    #[must_use]
    pub fn reset(mut self) -> Self {
        self.before.push(Event::Reset);
        self
    }

    /// The request must carry this field with this value.
    #[must_use]
    pub fn expect_field(mut self, name: &str, value: &str) -> Self {
        self.expected.push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// The request must not carry this field.
    #[must_use]
    pub fn expect_no_field(mut self, name: &str) -> Self {
        self.expected.push((name.to_owned(), None));
        self
    }

    fn complaints(&self, request: &Request) -> Vec<String> {
        let differs = |(name, wanted): &(String, Option<String>)| {
            let got = request.field(name);
            (got != wanted.as_deref()).then(|| {
                format!(
                    "{} {}: {name}: got {got:?}, want {wanted:?}",
                    request.method, request.target
                )
            })
        };
        self.expected.iter().filter_map(differs).collect()
    }

    fn steps(&self, method: &str) -> Vec<Step> {
        let mut steps: Vec<Step> = self.before.iter().cloned().map(Step::Event).collect();
        let body: &[u8] = match &self.raw {
            Some(raw) => raw,
            None => {
                steps.push(Step::Send(self.head()));
                if method == "HEAD" || self.status == 304 || self.status == 204 {
                    return steps;
                }
                &self.body
            }
        };
        let chunked = self.raw.is_none() && self.framing == Framing::Chunked;
        let mut sent = 0;
        let mut send = |steps: &mut Vec<Step>, to: usize| {
            let piece = &body[sent.min(to)..to];
            sent = to;
            if !piece.is_empty() && chunked {
                let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
                steps.push(Step::Send(bytes));
            } else if !piece.is_empty() {
                steps.push(Step::Send(piece.to_vec()));
            }
        };
        for (at, event) in &self.within {
            send(&mut steps, (*at).min(body.len()));
            steps.push(Step::Event(event.clone()));
        }
        send(&mut steps, body.len());
        if chunked {
            steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
        }
        if self.raw.is_none() && self.framing == Framing::Close {
            steps.push(Step::Event(Event::Fin));
        }
        steps
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        let mut line = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if self.date {
            line("Date", &httpdate::fmt_http_date(SystemTime::now()));
        }
        for (name, value) in &self.fields {
            line(name, value);
        }
        match self.framing {
            Framing::Length if self.status == 304 || self.status == 204 => {}
            Framing::Length => line("Content-Length", &self.body.len().to_string()),
            Framing::Chunked => line("Transfer-Encoding", "chunked"),
            Framing::Close => line("Connection", "close"),
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

type Route = Arc<dyn Fn(&Request) -> Script + Send + Sync>;

#[derive(Default)]
struct State {
    listener: Option<TcpListener>,
    /// Keeps the port while the origin is down.
    held: Option<Socket>,
    generation: usize,
    routes: Vec<(String, Route)>,
    queued: HashMap<String, VecDeque<Script>>,
    requests: Vec<Request>,
    complaints: Vec<String>,
    accepted: usize,
    live: BTreeMap<usize, TcpStream>,
    most_live: usize,
}

struct Shared {
    addr: SocketAddr,
    state: Mutex<State>,
}

/// A running scripted origin. `/healthz` answers 200 unless a route says otherwise.
pub struct Origin {
    shared: Arc<Shared>,
}

impl Origin {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Listens on this address.
    pub fn start_on(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let origin = Self { shared: Arc::new(Shared { addr, state: Mutex::default() }) };
        origin.route("/healthz", Script::ok("healthy\n"));
        origin.listen(listener);
        origin
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// `http://address:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// Answers every request for this path so; `*` at the end stands for the rest. The longest pattern wins, and of two
    /// equal ones the later.
    pub fn route(&self, pattern: &str, script: Script) {
        self.route_with(pattern, move |_| script.clone());
    }

    /// Answers requests for this path by what they ask.
    pub fn route_with(
        &self,
        pattern: &str,
        answer: impl Fn(&Request) -> Script + Send + Sync + 'static,
    ) {
        self.state().routes.push((pattern.to_owned(), Arc::new(answer)));
    }

    /// Answers one request for exactly this path so, in the order of the calls, before any route is asked.
    pub fn once(&self, path: &str, script: Script) {
        self.state().queued.entry(path.to_owned()).or_default().push_back(script);
    }

    /// How many requests came for this path, whatever their query and method.
    pub fn count(&self, path: &str) -> usize {
        self.state().requests.iter().filter(|request| request.path() == path).count()
    }

    /// The requests for this path, in order of arrival.
    pub fn requests(&self, path: &str) -> Vec<Request> {
        let state = self.state();
        state.requests.iter().filter(|request| request.path() == path).cloned().collect()
    }

    /// All requests in order of arrival, health checks left out.
    pub fn requests_in_order(&self) -> Vec<Request> {
        let state = self.state();
        state.requests.iter().filter(|request| request.path() != "/healthz").cloned().collect()
    }

    /// How many requests came in all, health checks left out.
    pub fn total(&self) -> usize {
        self.state().requests.iter().filter(|request| request.path() != "/healthz").count()
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.state().accepted
    }

    /// The most connections that were open at one time.
    pub fn most_open(&self) -> usize {
        self.state().most_live
    }

    /// Refuses connections and resets those that are open, until [`Origin::come_back`].
    pub fn go_down(&self) {
        let (listener, live) = {
            let mut state = self.state();
            state.generation += 1;
            (state.listener.take(), std::mem::take(&mut state.live))
        };
        live.values().for_each(reset);
        if listener.is_some() {
            // Wakes the accepting thread, which holds the last handle of the listening socket.
            let _ = TcpStream::connect(self.shared.addr);
            drop(listener);
            // Bound but not listening: connections are refused, and nobody else is given the port meanwhile.
            let held = wait::until("the origin's port to be free", || {
                let addr = self.shared.addr;
                let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).ok()?;
                socket.set_reuse_address(true).ok()?;
                socket.bind(&addr.into()).ok()?;
                Some(socket)
            });
            self.state().held = Some(held);
        }
    }

    /// Listens again on the same address.
    pub fn come_back(&self) {
        let held = self.state().held.take();
        if let Some(socket) = held {
            socket.listen(128).unwrap();
            self.listen(socket.into());
        }
    }

    /// Panics when a request was not what its script expected.
    #[track_caller]
    pub fn assert_expectations(&self) {
        let complaints = std::mem::take(&mut self.state().complaints);
        assert!(complaints.is_empty(), "the origin was not sent what it expected: {complaints:#?}");
    }

    fn listen(&self, listener: TcpListener) {
        let generation = {
            let mut state = self.state();
            state.listener = Some(listener.try_clone().unwrap());
            state.generation
        };
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let connection = {
                    let mut state = lock(&shared.state);
                    if state.generation != generation {
                        return;
                    }
                    state.accepted += 1;
                    let number = state.accepted;
                    state.live.insert(number, stream.try_clone().unwrap());
                    state.most_live = state.most_live.max(state.live.len());
                    number
                };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    serve(&shared, &stream, connection, generation);
                    lock(&shared.state).live.remove(&connection);
                });
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.go_down();
        if !std::thread::panicking() {
            self.assert_expectations();
        }
    }
}

fn serve(shared: &Shared, stream: &TcpStream, connection: usize, generation: usize) {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, connection) {
        let script = {
            let mut state = lock(&shared.state);
            // What comes after the shutdown can still be read: who is down has not read it.
            if state.generation != generation {
                return;
            }
            state.requests.push(request.clone());
            let script = pick(&mut state, &request);
            let complaints = script.complaints(&request);
            state.complaints.extend(complaints);
            script
        };
        let keep = !request.field("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        for step in script.steps(&request.method) {
            match step {
                Step::Send(bytes) => {
                    let mut writer = stream;
                    if writer.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Step::Event(Event::Hold(gate)) => {
                    gate.pass(|| lock(&shared.state).generation != generation);
                }
                Step::Event(Event::Reset) => return reset(stream),
                Step::Event(Event::Fin) => {
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
        if !keep {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn pick(state: &mut State, request: &Request) -> Script {
    if let Some(script) = state.queued.get_mut(request.path()).and_then(VecDeque::pop_front) {
        return script;
    }
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => request.path().starts_with(prefix),
        None => request.path() == pattern,
    };
    let routes = state.routes.iter().filter(|(pattern, _)| matches(pattern));
    let route = routes.max_by_key(|(pattern, _)| pattern.len()).map(|(_, route)| Arc::clone(route));
    match route {
        Some(route) => route(request),
        None => Script::status(404, format!("no route for {}\n", request.target)),
    }
}

/// Reads one request; `None` at the end of the connection or at bytes that are no request.
fn read_request(reader: &mut impl BufRead, connection: usize) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let method = words.next()?.to_owned();
    let target = words.next()?.to_owned();
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, fields, body: Vec::new(), connection };
    let chunked =
        request.field("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
    if chunked {
        request.body = read_chunks(reader)?;
    } else if let Some(length) = request.field("content-length") {
        request.body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut request.body).ok()?;
    }
    Some(request)
}

fn read_chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let size = line.trim_end().split(';').next()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).ok()?;
        let mut end = String::new();
        reader.read_line(&mut end).ok()?;
        if size == 0 {
            return Some(body);
        }
    }
}

fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    // With a zero linger time the last handle to be dropped sends RST; a reader in another thread is woken here.
    let _ = stream.shutdown(Shutdown::Read);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
