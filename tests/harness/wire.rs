//! HTTP/1.1 in bytes: sends what the test wrote and shows what came back, and whether the message was whole.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::wait::PATIENCE;

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that the framing promised arrived.
    Complete,
    /// The connection ended before that.
    Cut,
    /// The connection was reset before that.
    Reset,
}

/// Status line and fields of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `HTTP/1.1` or what was sent instead.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The fields in order, names as sent.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All fields of this name, joined as RFC 9110 §5.3 says.
    pub fn joined(&self, name: &str) -> String {
        let values = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        values.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// A body and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The content, chunks joined.
    pub bytes: Vec<u8>,
    /// Whether it was whole.
    pub end: End,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The head.
    pub head: Head,
    /// The content.
    pub body: Vec<u8>,
    /// Whether it was whole.
    pub end: End,
}

impl Reply {
    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// All `Cache-Status` members, as one list.
    pub fn cache_status(&self) -> String {
        self.head.joined("cache-status")
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An open connection.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    /// Connects; every later read or write that takes longer than the harness's patience fails.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        match Self::try_connect(addr) {
            Ok(wire) => wire,
            Err(error) => panic!("cannot connect to {addr}: {error}"),
        }
    }

    /// Connects, or says why not.
    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends these bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends these bytes; a peer that closed early is no failure.
    pub fn send_if_open(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.get_mut().write_all(bytes.as_ref());
    }

    /// Reads to the end of the connection.
    pub fn read_rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Says that no more will be sent.
    pub fn finish(&mut self) {
        let _ = self.stream.get_mut().shutdown(Shutdown::Write);
    }

    /// The local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().unwrap()
    }

    /// Reads a response head; interim responses (1xx) are read and dropped.
    #[track_caller]
    pub fn read_head(&mut self) -> Head {
        match self.try_read_head() {
            Some(head) => head,
            None => panic!("the connection ended before a response head"),
        }
    }

    /// Reads a response head, or `None` when the connection ended before one.
    pub fn try_read_head(&mut self) -> Option<Head> {
        loop {
            let head = self.read_one_head()?;
            if !(100..200).contains(&head.status) || head.status == 101 {
                return Some(head);
            }
        }
    }

    /// Reads the next response head, an interim one too.
    pub fn read_one_head(&mut self) -> Option<Head> {
        let line = self.read_line()?;
        let mut words = line.split(' ');
        let version = words.next()?.to_owned();
        let status = words.next()?.parse().ok()?;
        let mut fields = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Some(Head { version, status, fields });
            }
            let (name, value) = line.split_once(':')?;
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn read_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).ok()?;
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(String::from_utf8_lossy(line).into_owned())
    }

    /// Reads so many bytes as they are on the wire.
    #[track_caller]
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads the body that belongs to this head.
    pub fn read_body(&mut self, method: &str, head: &Head) -> Body {
        let mut bytes = Vec::new();
        if method == "HEAD" || head.status == 204 || head.status == 304 {
            return Body { bytes, end: End::Complete };
        }
        let chunked = head.joined("transfer-encoding").to_ascii_lowercase().ends_with("chunked");
        let end = if chunked {
            self.read_chunks(&mut bytes)
        } else if let Some(length) = head.field("content-length") {
            self.read_up_to(length.parse().unwrap(), &mut bytes)
        } else {
            match self.stream.read_to_end(&mut bytes) {
                Ok(_) => End::Complete,
                Err(error) => end_of(&error),
            }
        };
        Body { bytes, end }
    }

    fn read_chunks(&mut self, bytes: &mut Vec<u8>) -> End {
        loop {
            let Some(line) = self.read_line() else { return self.cut() };
            let size = line.split(';').next().unwrap_or_default().trim();
            let Ok(size) = usize::from_str_radix(size, 16) else { return End::Cut };
            let end = self.read_up_to(size, bytes);
            if end != End::Complete {
                return end;
            }
            // After a chunk its line end; after the last one the trailer section.
            loop {
                match self.read_line() {
                    None => return self.cut(),
                    Some(line) if line.is_empty() => break,
                    Some(_) => {}
                }
            }
            if size == 0 {
                return End::Complete;
            }
        }
    }

    fn read_up_to(&mut self, count: usize, bytes: &mut Vec<u8>) -> End {
        let mut left = count;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let room = left.min(buffer.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return End::Cut,
                Ok(read) => {
                    bytes.extend_from_slice(&buffer[..read]);
                    left -= read;
                }
                Err(error) => return end_of(&error),
            }
        }
        End::Complete
    }

    fn cut(&mut self) -> End {
        match self.stream.fill_buf() {
            Err(error) => end_of(&error),
            Ok(_) => End::Cut,
        }
    }

    /// Reads a whole response to a request of this method.
    #[track_caller]
    pub fn read_reply(&mut self, method: &str) -> Reply {
        let head = self.read_head();
        let body = self.read_body(method, &head);
        Reply { status: head.status, head, body: body.bytes, end: body.end }
    }

    /// Sends a request and reads its response.
    #[track_caller]
    pub fn exchange(&mut self, request: &Request<'_>) -> Reply {
        self.send(request.bytes());
        self.read_reply(request.method)
    }

    /// Panics unless the peer closes without another byte.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        if let Err(why) = self.closed() {
            panic!("{why}");
        }
    }

    /// Waits for the peer to close; says what happened instead.
    pub fn closed(&mut self) -> Result<(), String> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) if rest.is_empty() => Ok(()),
            Ok(_) => Err(format!("more came: {:?}", String::from_utf8_lossy(&rest))),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(format!("the connection was not closed: {error}")),
        }
    }
}

fn end_of(error: &std::io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset => End::Reset,
        kind => {
            assert!(
                kind != ErrorKind::WouldBlock && kind != ErrorKind::TimedOut,
                "the peer neither sent nor closed for {PATIENCE:?}"
            );
            End::Cut
        }
    }
}

/// A request to be written in bytes.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    method: &'a str,
    host: &'a str,
    target: &'a str,
    fields: Vec<(&'a str, String)>,
    body: Option<Vec<u8>>,
}

impl<'a> Request<'a> {
    /// A request without a body.
    pub fn new(method: &'a str, host: &'a str, target: &'a str) -> Self {
        Self { method, host, target, fields: Vec::new(), body: None }
    }

    /// A GET.
    pub fn get(host: &'a str, target: &'a str) -> Self {
        Self::new("GET", host, target)
    }

    /// One more field.
    #[must_use]
    pub fn field(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// A body framed by Content-Length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The bytes of the request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head =
            format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it on a connection of its own.
    #[track_caller]
    pub fn send(&self, addr: SocketAddr) -> Reply {
        Wire::connect(addr).exchange(self)
    }

    /// Sends it on a connection of its own; `None` when there was no answer.
    pub fn try_send(&self, addr: SocketAddr) -> Option<Reply> {
        let mut wire = Wire::try_connect(addr).ok()?;
        wire.send_if_open(self.bytes());
        let head = wire.try_read_head()?;
        let body = wire.read_body(self.method, &head);
        Some(Reply { status: head.status, head, body: body.bytes, end: body.end })
    }
}

/// A GET on a connection of its own.
#[track_caller]
pub fn get(addr: SocketAddr, host: &str, target: &str) -> Reply {
    Request::get(host, target).send(addr)
}

/// Sends bytes on a connection of its own and reads the response, if there is one, and whether the peer then closed.
#[track_caller]
pub fn raw(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> (Option<Head>, Wire) {
    let mut wire = Wire::connect(addr);
    wire.send_if_open(bytes);
    let head = wire.try_read_head();
    if let Some(head) = &head {
        let _ = wire.read_body("GET", head);
    }
    (head, wire)
}
