//! A node over real sockets against a scripted origin. Nothing sleeps: scripts wait for what the test does.

mod admin;
mod cache;
mod clients;
mod purge;
mod purge_log;
mod secure;
mod segments;
mod shares;
mod upstreams;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::listen::Workers;
use super::node::{Node, Source};
use crate::config::Plan;
use crate::semantics::reason::Outcome;

const DEADLINE: Duration = Duration::from_secs(20);

/// What a scripted origin does with a request.
#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    /// Waits until the test lets it.
    Wait(Arc<Semaphore>),
    /// Closes in the middle.
    Cut,
}

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

type Script = dyn Fn(&str) -> Vec<Step> + Send + Sync;

/// An origin that answers each request by a script, and counts.
struct ScriptedOrigin {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl ScriptedOrigin {
    async fn start(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (seen, count) = (Arc::clone(&requests), Arc::clone(&connections));
        let script: Arc<Script> = Arc::new(script);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Self::converse(stream, Arc::clone(&seen), Arc::clone(&script)));
            }
        });
        Self { address, requests, connections }
    }

    async fn converse(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, script: Arc<Script>) {
        let mut held = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = held.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => held.extend_from_slice(&buffer[..length]),
                }
            };
            let head = String::from_utf8(held.drain(..end).collect()).unwrap().to_ascii_lowercase();
            if head.contains("transfer-encoding: chunked") {
                while !held.ends_with(b"0\r\n\r\n") {
                    let mut buffer = [0; 4096];
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(length) => held.extend_from_slice(&buffer[..length]),
                    }
                }
                held.clear();
            }
            seen.lock().unwrap().push(head.clone());
            for step in script(&head) {
                match step {
                    Step::Send(bytes) => {
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    Step::Wait(gate) => gate.acquire().await.unwrap().forget(),
                    Step::Cut => return,
                }
            }
        }
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn last(&self) -> String {
        self.requests.lock().unwrap().last().cloned().unwrap()
    }
}

struct Text(String);

impl shared::config::Files for Text {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }
    fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

struct TestNode {
    node: Arc<Node>,
    http: SocketAddr,
    https: SocketAddr,
    workers: Option<Workers>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.node.stop();
    }
}

/// A node named `name`; `extra` goes into its table, `rest` after it.
fn start(name: &str, extra: &str, rest: &str) -> TestNode {
    let text = format!(
        "[datacenter.icn]\nlocation = [37.0, 126.0]\n[edge.neighbour]\ndatacenter = \"icn\"\nhttp = [\"127.0.0.1:8\"]\nadmin = \"127.0.0.1:9\"\n[edge.{name}]\ndatacenter = \"icn\"\naddress = [\"127.0.0.1\"]\nhttp = [\"127.0.0.1:1\"]\nhttps = [\"127.0.0.1:2\"]\nadmin = \"127.0.0.1:3\"\nmemory = \"16MiB\"\nworkers = 2\n{extra}\n{rest}"
    );
    let loaded =
        shared::config::load(Path::new("test.toml"), &Text(text)).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        });
    let plan = Plan::new(&loaded, Some(name)).unwrap();
    let source = Source { path: PathBuf::new(), node: None };
    let node = Node::new(source, plan).unwrap_or_else(|error| panic!("{error}"));
    let mut workers = Workers::start(&node, 2).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let addresses = workers.listen(&[any], &[any]).unwrap();
    TestNode { node, http: addresses[0], https: addresses[1], workers: Some(workers) }
}

/// The site www.test in front of an origin.
fn site(origin: &str, cache: &str, more: &str) -> String {
    format!(
        "[origin.o]\nservers = [{origin}]\ntimeouts = {{ connect = \"2s\", first_byte = \"10s\", between_bytes = \"10s\" }}\n[cache.c]\n{cache}\n[site.www]\nhosts = [\"www.test\"]\n{more}\nroutes = [ {{ path = \"/api/*\", origin = \"o\", cache = \"off\" }}, {{ path = \"/*\", origin = \"o\", cache = \"c\" }} ]\n"
    )
}

fn server(address: SocketAddr) -> String {
    format!("{{ url = \"http://{address}\" }}")
}

fn simple(origin: &ScriptedOrigin) -> TestNode {
    start("edge-1", "", &site(&server(origin.address), "", ""))
}

impl TestNode {
    fn counted(&self, outcome: Outcome) -> u64 {
        self.node.snapshot.load().list[0].counters.get(outcome)
    }

    /// Waits for a condition on the node, which other threads bring about.
    async fn until(&self, what: &str, mut holds: impl FnMut(&Node) -> bool) {
        let end = tokio::time::Instant::now() + DEADLINE;
        while !holds(&self.node) {
            assert!(tokio::time::Instant::now() < end, "never: {what}");
            tokio::task::yield_now().await;
        }
    }
}

/// A response as it came over the wire.
#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// It ended as its framing says.
    whole: bool,
}

impl Response {
    fn field(&self, name: &str) -> Option<String> {
        let name = format!("{name}: ");
        self.head.lines().find_map(|line| {
            line.to_ascii_lowercase().starts_with(&name).then(|| line[name.len()..].to_owned())
        })
    }

    fn parse(bytes: &[u8], head_only: bool) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end =
            end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(bytes))) + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head[9..12].parse().unwrap();
        let mut response = Self { status, head, body: bytes[end..].to_vec(), whole: false };
        if head_only {
            response.whole = response.body.is_empty();
        } else if let Some(length) = response.field("content-length") {
            response.whole = response.body.len() == length.parse::<usize>().unwrap();
        } else if response.field("transfer-encoding").is_some() {
            let (body, whole) = dechunk(&response.body);
            (response.body, response.whole) = (body, whole);
        } else {
            response.whole = true;
        }
        response
    }
}

fn dechunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else {
            return (body, false);
        };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 {
            return (body, true);
        }
        if bytes.len() < size + 2 {
            body.extend_from_slice(bytes);
            return (body, false);
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

/// Sends bytes and reads until the connection is closed.
async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    tokio::time::timeout(DEADLINE, async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut answer).await;
        answer
    })
    .await
    .expect("the connection was not closed")
}

async fn request(address: SocketAddr, method: &str, path: &str, fields: &str) -> Response {
    let text =
        format!("{method} {path} HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n{fields}\r\n");
    Response::parse(&raw(address, text.as_bytes()).await, method == "HEAD")
}

async fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path, "").await
}

const OK: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"v1\"\r\nContent-Length: 10\r\n\r\n0123456789";

/// One GET over TLS and HTTP/2.
async fn http2(address: SocketAddr, path: &str) -> (u16, Result<bytes::Bytes, hyper::Error>) {
    use http_body_util::BodyExt;
    #[derive(Debug)]
    struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);
    impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(
                message,
                certificate,
                signed,
                &self.0.signature_verification_algorithms,
            )
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signed: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(
                message,
                certificate,
                signed,
                &self.0.signature_verification_algorithms,
            )
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
    let provider = shared::io::tls::provider();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect("www.test".try_into().unwrap(), stream)
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("https://www.test{path}"))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.map(|body| body.to_bytes()))
}
