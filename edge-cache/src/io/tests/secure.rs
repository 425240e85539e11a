//! TLS to origins: verified by default, against a file where one is given, HTTP/2 where the origin takes it.

use std::io::Write as _;

use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use shared::io::tls;

use super::*;

/// An origin over TLS whose certificate is for `name`.
struct SecureOrigin {
    address: SocketAddr,
    /// The certificate, as a file to trust.
    authority: tempfile::NamedTempFile,
    /// Protocol and Host of each request, checks included.
    seen: Arc<Mutex<Vec<String>>>,
}

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for (n, three) in der.chunks(3).enumerate() {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for digit in 0..4 {
            text.push(match digit <= three.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]),
                false => '=',
            });
        }
        if n % 16 == 15 {
            text.push('\n');
        }
    }
    text + "\n-----END CERTIFICATE-----\n"
}

async fn secure_origin(name: &str, alpn: &'static [u8]) -> SecureOrigin {
    let certificate = tls::self_signed(vec![name.to_owned()]).unwrap();
    let mut authority = tempfile::NamedTempFile::new().unwrap();
    authority.write_all(pem(&certificate.cert[0]).as_bytes()).unwrap();
    let mut certificates = tls::Certificates::default();
    certificates.add(&[name.to_owned()], &certificate);
    let config = tls::server_config(Arc::new(certificates), &[alpn]).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let host = request.headers().get("host").and_then(|host| host.to_str().ok());
                    let host = host.or_else(|| request.uri().authority().map(|name| name.as_str()));
                    let line = format!("{:?} {}", request.version(), host.unwrap_or_default());
                    log.lock().unwrap().push(line);
                    let response = http::Response::builder().header("cache-control", "max-age=60");
                    let body = Full::new(bytes::Bytes::from_static(b"secret"));
                    async move { response.body(body) }
                });
                let io = TokioIo::new(stream);
                let _ = match alpn {
                    b"h2" => {
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        server.serve_connection(io, service).await
                    }
                    _ => {
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .await
                    }
                };
            });
        }
    });
    SecureOrigin { address, authority, seen }
}

fn secure_site(origin: &SecureOrigin, more: &str) -> String {
    let server = format!("{{ url = \"https://{}\" }}", origin.address);
    site(&server, "", "").replace("[cache.c]", &format!("{more}\n[cache.c]"))
}

fn trusting(origin: &SecureOrigin) -> String {
    format!("ca_file = {:?}", origin.authority.path().to_str().unwrap())
}

#[tokio::test]
async fn an_origin_is_asked_over_the_version_of_http_that_it_takes() {
    for (alpn, version) in [(&b"h2"[..], "HTTP/2.0"), (&b"http/1.1"[..], "HTTP/1.1")] {
        let origin = secure_origin("127.0.0.1", alpn).await;
        let edge = start("edge-1", "", &secure_site(&origin, &trusting(&origin)));
        let first = get(edge.http, "/a").await;
        assert_eq!((first.status, &first.body[..]), (200, &b"secret"[..]), "{}", first.head);
        assert!(get(edge.http, "/a").await.field("cache-status").unwrap().contains("hit"));
        assert_eq!(*origin.seen.lock().unwrap(), [format!("{version} www.test")]);
    }
}

#[tokio::test]
async fn an_origin_whose_certificate_is_not_good_is_not_asked() {
    let named = secure_origin("127.0.0.1", b"http/1.1").await;
    let other = secure_origin("other.test", b"http/1.1").await;
    for (origin, more) in [(&named, String::new()), (&other, trusting(&other))] {
        let edge = start("edge-1", "", &secure_site(origin, &more));
        for path in ["/a", "/api/a"] {
            let refused = get(edge.http, path).await;
            let status = refused.field("proxy-status").unwrap_or_default();
            assert_eq!(refused.status, 502);
            assert!(status.contains("error=tls_certificate_error"), "{status}");
        }
        assert!(origin.seen.lock().unwrap().is_empty());
    }
    // What is there speaks no TLS at all.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(OK.as_bytes()).await;
        }
    });
    let origin = SecureOrigin { address, ..secure_origin("127.0.0.1", b"h2").await };
    let edge = start("edge-1", "", &secure_site(&origin, &trusting(&origin)));
    let refused = get(edge.http, "/a").await;
    let status = refused.field("proxy-status").unwrap_or_default();
    assert!(refused.status == 502 && status.contains("error=tls_protocol_error"), "{status}");
}

/// The certificate must be for `sni`, else for `host`, else for the server's own name; a check goes by the same.
#[tokio::test]
async fn the_name_of_a_certificate_is_sni_then_host_then_the_servers_own() {
    let health = "health = { path = \"/healthz\", interval = \"1s\", timeout = \"1s\", down_after = 1, up_after = 1 }";
    for (certificate, keys) in [
        ("127.0.0.1", ""),
        ("inner.test", "host = \"inner.test\""),
        ("inner.test", "host = \"inner.test:8443\""),
        ("other.test", "host = \"inner.test\"\nsni = \"other.test\""),
    ] {
        let origin = secure_origin(certificate, b"http/1.1").await;
        let more = format!("{keys}\n{health}\n{}", trusting(&origin));
        let edge = start("edge-1", "", &secure_site(&origin, &more));
        edge.until("it is checked", |_| !origin.seen.lock().unwrap().is_empty()).await;
        if keys.contains("inner.test\"") {
            assert_eq!(origin.seen.lock().unwrap()[0], "HTTP/1.1 inner.test", "{keys}");
        }
        assert_eq!(get(edge.http, "/a").await.status, 200, "{keys}");
    }
    let origin = secure_origin("inner.test", b"http/1.1").await;
    let more = format!("host = \"inner.test\"\nsni = \"other.test\"\n{}", trusting(&origin));
    let edge = start("edge-1", "", &secure_site(&origin, &more));
    let refused = get(edge.http, "/a").await;
    let status = refused.field("proxy-status").unwrap_or_default();
    assert!(refused.status == 502 && status.contains("error=tls_certificate_error"), "{status}");
}

#[tokio::test]
async fn an_operator_may_have_certificates_not_verified() {
    let origin = secure_origin("other.test", b"http/1.1").await;
    let edge = start("edge-1", "", &secure_site(&origin, "verify = false"));
    assert_eq!(get(edge.http, "/a").await.status, 200);
}

/// RFC 9113 §3.2: `protocol` says what is offered, and a server that does not take it is not asked in another version.
#[tokio::test]
async fn the_version_of_http_is_what_the_configuration_says() {
    let both = secure_origin("127.0.0.1", b"http/1.1").await;
    let edge = start(
        "edge-1",
        "",
        &secure_site(&both, &format!("protocol = \"http1\"\n{}", trusting(&both))),
    );
    assert_eq!(get(edge.http, "/a").await.status, 200);
    assert_eq!(*both.seen.lock().unwrap(), ["HTTP/1.1 www.test"]);
    let edge = start(
        "edge-1",
        "",
        &secure_site(&both, &format!("protocol = \"http2\"\n{}", trusting(&both))),
    );
    let refused = get(edge.http, "/a").await;
    let status = refused.field("proxy-status").unwrap_or_default();
    assert!(refused.status == 502 && status.contains("error=tls_protocol_error"), "{status}");
    assert_eq!(both.seen.lock().unwrap().len(), 1);
}
