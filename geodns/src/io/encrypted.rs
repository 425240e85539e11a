//! The listeners of DNS over TLS, HTTPS and QUIC: bound with the others, served by threads of their own, so that the
//! cost of handshakes is not on those that serve UDP and TCP.
//!
//! They are ours, on rustls, hyper and quinn, and not those of hickory-server (0.26.3), which were meant to be used and
//! do not keep what this server promises. Its listeners take a socket and accept on it themselves, so no limit on
//! connections, in all or of one client, can stand in front of them. Beyond that:
//!
//! - **QUIC** awaits each handshake before it accepts the next one, up to five seconds: one packet from nobody holds up
//!   everybody. Streams of a connection are read one after another, and a hundred queries end it.
//! - **HTTPS** answers no error of HTTP (a request that is none is dropped), sets no `Cache-Control`, and bounds neither
//!   the requests at work nor the time of a handshake of HTTP/2.
//! - **TLS** has one time-out for handshake and queries, and none for a client that does not read.
//! - All of them decode queries before the handler sees them and answer malformed ones by themselves, and take answers
//!   as records to encode anew: not the octets that [`crate::answer`] made.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use shared::config::NameserverSpec;
use shared::io::{sockets, tls as shared_tls};
use tokio::task::JoinSet;

use super::certificate::Certificate;
use super::connections::Connections;
use super::node::Served;
use super::{https, quic, tls};

/// The sockets of one thread.
#[derive(Default)]
struct Sockets {
    dot: Vec<TcpListener>,
    doh: Vec<TcpListener>,
    doq: Vec<UdpSocket>,
}

/// Sockets that are bound and not yet served, by thread; none when nothing is encrypted.
pub(super) struct Encrypted(Vec<Sockets>);

/// What all threads serve with.
#[derive(Clone)]
struct Serving {
    dot: Arc<ServerConfig>,
    doh: Arc<ServerConfig>,
    doq: quinn::ServerConfig,
    served: Arc<ArcSwap<Served>>,
    connections: Arc<Connections>,
}

impl Encrypted {
    /// Binds what is configured, for this many threads.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub(super) fn bind(nameserver: &NameserverSpec, threads: usize) -> Result<Self, String> {
        let NameserverSpec { dot, doh, doq, .. } = nameserver;
        if dot.is_empty() && doh.is_empty() && doq.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let mut bound: Vec<Sockets> = (0..threads).map(|_| Sockets::default()).collect();
        for (key, addresses) in [("dot", dot), ("doh", doh), ("doq", doq)] {
            for address in addresses {
                let failed = |error| {
                    format!("cannot listen on {address}, in `{key}` of this nameserver: {error}")
                };
                if key == "doq" {
                    let sockets = sockets::udp_sockets(*address, threads).map_err(failed)?;
                    for (thread, socket) in bound.iter_mut().zip(sockets) {
                        socket.set_nonblocking(true).map_err(failed)?;
                        thread.doq.push(socket);
                    }
                    continue;
                }
                let listeners = sockets::tcp_listeners(*address, threads).map_err(failed)?;
                for (thread, listener) in bound.iter_mut().zip(listeners) {
                    if key == "dot" { &mut thread.dot } else { &mut thread.doh }.push(listener);
                }
            }
        }
        Ok(Self(bound))
    }

    /// Starts the threads, which end when `connections` are stopped.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn start(
        self,
        certificate: Option<Arc<Certificate>>,
        served: &Arc<ArcSwap<Served>>,
        connections: &Arc<Connections>,
    ) -> Result<Vec<JoinHandle<()>>, String> {
        let Some(certificate) = certificate.filter(|_| !self.0.is_empty()) else {
            return Ok(Vec::new());
        };
        let config = |alpn| {
            let config = shared_tls::server_config(Arc::clone(&certificate) as _, &[alpn]);
            config.map_err(|error| error.to_string())
        };
        let serving = Serving {
            dot: Arc::new(config(tls::ALPN)?),
            doh: Arc::new(config(https::ALPN)?),
            doq: quic::server_config(config(quic::ALPN)?, connections.limits.idle)?,
            served: Arc::clone(served),
            connections: Arc::clone(connections),
        };
        let threads = self.0.into_iter().enumerate().map(|(index, sockets)| {
            let serving = serving.clone();
            let thread = std::thread::Builder::new().name(format!("tls-{index}"));
            thread.spawn(move || run(sockets, serving)).map_err(|error| error.to_string())
        });
        threads.collect()
    }
}

fn run(sockets: Sockets, serving: Serving) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(sockets, serving)),
        Err(error) => tracing::error!(%error, "a thread of encrypted transports cannot begin"),
    }
}

async fn serve(sockets: Sockets, serving: Serving) {
    let Serving { dot, doh, doq, served, connections } = serving;
    let mut listeners = JoinSet::new();
    let again = |listener: TcpListener| {
        tokio::net::TcpListener::from_std(listener)
            .inspect_err(|error| tracing::error!(%error, "a listener cannot be used"))
    };
    for listener in sockets.dot.into_iter().flat_map(again) {
        let (served, connections) = (Arc::clone(&served), Arc::clone(&connections));
        listeners.spawn(tls::serve(listener, Arc::clone(&dot), served, connections));
    }
    for listener in sockets.doh.into_iter().flat_map(again) {
        let (served, connections) = (Arc::clone(&served), Arc::clone(&connections));
        listeners.spawn(https::serve(listener, Arc::clone(&doh), served, connections));
    }
    for socket in sockets.doq {
        let (served, connections) = (Arc::clone(&served), Arc::clone(&connections));
        listeners.spawn(quic::serve(socket, doq.clone(), served, connections));
    }
    while listeners.join_next().await.is_some() {}
    connections.all_ended().await;
}
