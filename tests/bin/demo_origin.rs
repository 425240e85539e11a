//! The origins of the demo: `demo-origin static` serves files with validators, `demo-origin api` a small JSON API that
//! must not be cached. Both count what they are asked, and tell at `/__count` and `/__sent`.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program of the demo, not a decision of a node"
)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The largest body that `/api/echo` takes.
const MOST_ECHO: usize = 1 << 20;
/// The largest file that is served: files are read whole.
const MOST_FILE: u64 = 64 << 20;

/// Origins for the demo.
#[derive(Debug, Parser)]
#[command(name = "demo-origin")]
struct Cli {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Files of a folder, or one range of them, with ETag, Last-Modified and Cache-Control.
    Static(StaticArgs),
    /// A JSON API: /api/time, and /api/echo for any method. Nothing of it may be stored.
    Api(ListenArgs),
}

#[derive(Debug, Args)]
struct ListenArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

#[derive(Debug, Args)]
struct StaticArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// The folder to serve.
    #[arg(long)]
    root: PathBuf,
    /// Cache-Control of paths that begin so: `/images/=max-age=3600`. The longest match counts; may be repeated.
    #[arg(long, value_name = "PREFIX=VALUE", value_parser = pair)]
    cache_control: Vec<(String, String)>,
    /// Milliseconds to think before answering paths that begin so: `/slow/=500`. May be repeated.
    #[arg(long, value_name = "PREFIX=MILLISECONDS", value_parser = pair)]
    delay: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (prefix, value) = text.split_once('=').ok_or("write /PREFIX=VALUE")?;
    if !prefix.starts_with('/') {
        return Err("the prefix begins with a slash".to_owned());
    }
    Ok((prefix.to_owned(), value.to_owned()))
}

/// What was asked so far.
#[derive(Debug, Default)]
struct Count {
    by_path: Mutex<BTreeMap<String, BTreeMap<u16, u64>>>,
    /// Bytes of content.
    sent: Mutex<BTreeMap<String, u64>>,
}

impl Count {
    /// Paths beyond this many are counted together: a demo may be crawled.
    const MOST_PATHS: usize = 10_000;

    fn add(&self, path: &str, status: StatusCode, bytes: u64) {
        let mut by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        let full = by_path.len() >= Self::MOST_PATHS && !by_path.contains_key(path);
        let path = if full { "(others)" } else { path };
        *by_path.entry(path.to_owned()).or_default().entry(status.as_u16()).or_default() += 1;
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent.entry(path.to_owned()).or_default() += bytes;
    }

    /// How many bytes of a path's content were sent.
    fn sent(&self, path: &str) -> u64 {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(path).copied().unwrap_or(0)
    }

    /// The whole table, or the number of requests of one path.
    fn tell(&self, path: Option<&str>) -> String {
        let by_path = self.by_path.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            Some(path) => by_path.get(path).map_or(0, |by| by.values().sum::<u64>()).to_string(),
            None => format!("{:#}", json!(*by_path)),
        }
    }
}

#[derive(Debug)]
struct Origin {
    kind: Kind,
    listen: SocketAddr,
    count: Count,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Cli { kind } = Cli::parse();
    let listen = match &kind {
        Kind::Static(args) => {
            let root = &args.root;
            anyhow::ensure!(root.is_dir(), "{} is no folder", root.display());
            for (prefix, value) in &args.cache_control {
                HeaderValue::from_str(value)
                    .with_context(|| format!("Cache-Control of {prefix}"))?;
            }
            for (prefix, value) in &args.delay {
                value.parse::<u64>().with_context(|| format!("the delay of {prefix}"))?;
            }
            args.listen.listen
        }
        Kind::Api(args) => args.listen,
    };
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on http://{listen}");
    let origin = Arc::new(Origin { kind, listen, count: Count::default() });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: those in use come back when their clients leave.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let origin = Arc::clone(&origin);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let origin = Arc::clone(&origin);
                async move { Ok::<_, Infallible>(origin.answer(request).await) }
            });
            // An error here is a client that left or spoke nonsense: it was told, and nobody else is concerned.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(75))
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

impl Origin {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/healthz" => return text(StatusCode::OK, "healthy\n"),
            "/__count" => {
                let query = request.uri().query().and_then(|query| query.strip_prefix("path="));
                return text(StatusCode::OK, &(self.count.tell(query) + "\n"));
            }
            "/__sent" => {
                let query = request.uri().query().and_then(|query| query.strip_prefix("path="));
                return text(
                    StatusCode::OK,
                    &format!("{}\n", self.count.sent(query.unwrap_or("/"))),
                );
            }
            _ => {}
        }
        let answer = match &self.kind {
            Kind::Static(args) => args.answer(&request).await,
            Kind::Api(_) => self.api(request).await,
        };
        self.count.add(&path, answer.status(), answer.body().size_hint().lower());
        answer
    }

    async fn api(&self, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        match parts.uri.path() {
            "/api/time" | "/time" => {
                let now = SystemTime::now();
                let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let date = httpdate::fmt_http_date(now);
                json_answer(&json!({ "date": date, "unix_ms": millis, "server": self.listen }))
            }
            "/api/echo" | "/echo" => match Limited::new(body, MOST_ECHO).collect().await {
                Ok(body) => {
                    let body = body.to_bytes();
                    json_answer(&json!({
                        "method": parts.method.as_str(),
                        "target": parts.uri.to_string(),
                        "bytes": body.len(),
                        "body": String::from_utf8_lossy(&body),
                        "server": self.listen,
                    }))
                }
                Err(_) => text(StatusCode::PAYLOAD_TOO_LARGE, "at most 1 MiB\n"),
            },
            _ => no_store(text(StatusCode::NOT_FOUND, "try /api/time or /api/echo\n")),
        }
    }
}

impl StaticArgs {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if let Some(delay) = longest(&self.delay, path).and_then(|delay| delay.parse().ok()) {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "files are read only\n");
            answer.headers_mut().insert("allow", HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let Some(file) = file_of(&self.root, path) else {
            return text(StatusCode::BAD_REQUEST, "no path of a file\n");
        };
        let read = tokio::task::spawn_blocking(move || read(&file)).await;
        let mut answer = match read {
            Ok(Ok(file)) => file.answer(request),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                text(StatusCode::NOT_FOUND, "no such file\n")
            }
            _ => return text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n"),
        };
        if let Some(value) = longest(&self.cache_control, path)
            && let Ok(value) = HeaderValue::from_str(value)
        {
            answer.headers_mut().insert(CACHE_CONTROL, value);
        }
        answer
    }
}

fn longest<'a>(pairs: &'a [(String, String)], path: &str) -> Option<&'a str> {
    let matching = pairs.iter().filter(|(prefix, _)| path.starts_with(prefix.as_str()));
    matching.max_by_key(|(prefix, _)| prefix.len()).map(|(_, value)| value.as_str())
}

/// The file of a path: plain segments only, so that nothing outside of the folder can be named.
fn file_of(root: &Path, path: &str) -> Option<PathBuf> {
    let inside = path.strip_prefix('/')?;
    let inside = if inside.is_empty() || inside.ends_with('/') {
        format!("{inside}index.html")
    } else {
        inside.to_owned()
    };
    let plain = Path::new(&inside).components().all(|c| matches!(c, Component::Normal(_)));
    let odd = inside.contains(['%', '\\', '\0']) || inside.split('/').any(|s| s.starts_with('.'));
    (plain && !odd).then(|| root.join(inside))
}

struct File {
    content: Bytes,
    modified: SystemTime,
    kind: &'static str,
}

fn read(path: &Path) -> std::io::Result<File> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    if metadata.len() > MOST_FILE {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let kind = match path.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    Ok(File { content: std::fs::read(path)?.into(), modified: metadata.modified()?, kind })
}

impl File {
    /// RFC 9110 §13.2.2: If-None-Match is asked first; If-Modified-Since only when it is absent.
    fn answer(self, request: &Request<Incoming>) -> Answer {
        let since = self.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let etag = format!("\"{:x}-{:x}\"", self.content.len(), since.as_nanos());
        let field = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let unchanged = match field(IF_NONE_MATCH) {
            Some(tags) => tags.split(',').any(|tag| {
                let tag = tag.trim();
                tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
            }),
            None => field(IF_MODIFIED_SINCE)
                .and_then(|date| httpdate::parse_http_date(date).ok())
                .and_then(|date| date.duration_since(UNIX_EPOCH).ok())
                .is_some_and(|date| since.as_secs() <= date.as_secs()),
        };
        let length = self.content.len();
        let range = field(RANGE)
            .filter(|_| request.method() == Method::GET)
            .filter(|_| field(IF_RANGE).is_none_or(|tag| tag == etag))
            .and_then(|range| one_range(range, length));
        let mut answer = Response::new(Full::default());
        let headers = answer.headers_mut();
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            headers.insert(ETAG, etag);
        }
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(self.modified)) {
            headers.insert(LAST_MODIFIED, date);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        if unchanged {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        } else if let Some(range) = range {
            let of = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            if let Ok(of) = HeaderValue::from_str(&of) {
                answer.headers_mut().insert(CONTENT_RANGE, of);
            }
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            *answer.body_mut() = Full::new(self.content.slice(range));
        } else {
            *answer.body_mut() = Full::new(self.content);
        }
        answer
    }
}

/// The bytes that `bytes=FIRST-LAST` or `bytes=FIRST-` means. Any other form, and what lies beyond the end, is answered with
/// the whole file (RFC 9110 §14.2 lets a server ignore Range).
fn one_range(range: &str, length: usize) -> Option<std::ops::Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() { usize::MAX } else { last.parse().ok()? };
    let end = last.saturating_add(1).min(length);
    (first < end).then_some(first..end)
}

fn text(status: StatusCode, content: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(content.as_bytes())));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn json_answer(value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    no_store(answer)
}

fn no_store(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_below_the_folder_are_named() {
        let root = Path::new("/srv");
        let cases = [
            ("/", Some("/srv/index.html")),
            ("/a/b.css", Some("/srv/a/b.css")),
            ("/a/", Some("/srv/a/index.html")),
            ("/../etc/passwd", None),
            ("/a/../../etc/passwd", None),
            ("/%2e%2e/etc", None),
            ("//etc/passwd", None),
            ("/.git/config", None),
            ("*", None),
        ];
        for (path, wanted) in cases {
            assert_eq!(file_of(root, path).as_deref(), wanted.map(Path::new), "{path}");
        }
    }

    #[test]
    fn the_longest_prefix_counts() {
        let pairs = [("/".into(), "short".into()), ("/a/".into(), "long".into())];
        assert_eq!(longest(&pairs, "/a/b"), Some("long"));
        assert_eq!(longest(&pairs, "/ab"), Some("short"));
    }

    #[test]
    fn a_range_is_cut_at_the_end_or_ignored() {
        assert_eq!(one_range("bytes=0-0", 10), Some(0..1));
        assert_eq!(one_range("bytes=4-", 10), Some(4..10));
        assert_eq!(one_range("bytes=4-99999999999999999", 10), Some(4..10));
        for ignored in
            ["bytes=10-", "bytes=5-4", "bytes=-3", "bytes=0-1,4-5", "bytes=a-b", "lines=0-1"]
        {
            assert_eq!(one_range(ignored, 10), None, "{ignored}");
        }
    }

    #[test]
    fn options_are_pairs() {
        assert_eq!(pair("/a/=max-age=5"), Ok(("/a/".into(), "max-age=5".into())));
        assert!(pair("a=b").is_err() && pair("/a").is_err());
    }
}
