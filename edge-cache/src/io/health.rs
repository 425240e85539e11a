//! Active checks of origins' servers and of parents. Requests that fail count, too: see [`super::pool`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method};
use shared::config::{OriginProtocol, StatusPattern};
use shared::health::{Health, Thresholds};
use shared::io::clock;
use shared::io::probe::{Question, ask};
use tokio::task::JoinSet;

use super::ask::{Ask, Outgoing};
use super::node::{Origin, Parent};
use super::pool::{Timeouts, Upstream};
use super::signer::Signer;
use crate::config::Plan;
use crate::semantics::Reason;

/// How parents are checked: often, for a parent that is down costs its edges hits.
const PARENT_INTERVAL: Duration = Duration::from_secs(1);
const PARENT_TIMEOUT: Duration = Duration::from_secs(1);
const PARENT_THRESHOLDS: Thresholds = Thresholds { down_after: 2, up_after: 1 };
/// A server that has never answered is asked this often: nodes that are started together need not wait for each other.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
/// Idle connections are looked through this often.
const SWEEP: Duration = Duration::from_secs(10);

/// Checks that run until this is dropped.
pub struct Checks(
    #[expect(dead_code, reason = "held for its drop, which ends the tasks")] JoinSet<()>,
);

impl Checks {
    /// Starts the checks of all servers that have one.
    pub fn start(
        plan: &Plan,
        origins: &BTreeMap<String, Arc<Origin>>,
        parents: &BTreeMap<String, Arc<Parent>>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        for (name, origin) in origins {
            let Some(check) = plan.origins.get(name).and_then(|spec| spec.health.as_ref()) else {
                continue;
            };
            for at in 0..origin.upstream.servers.len() {
                let host = origin.host.as_ref().and_then(|host| host.to_str().ok());
                tasks.spawn(watch(
                    Arc::clone(&origin.upstream),
                    at,
                    Check {
                        host: host.map(str::to_owned),
                        signer: origin.signer.clone(),
                        path: check.path.clone(),
                        status: StatusPattern { from: 200, to: 399 },
                        interval: check.interval.get(),
                        timeout: check.timeout.get(),
                        thresholds: Thresholds {
                            down_after: check.down_after,
                            up_after: check.up_after,
                        },
                    },
                ));
            }
        }
        for parent in parents.values().filter(|parent| !parent.is_self) {
            tasks.spawn(watch(
                Arc::clone(&parent.upstream),
                0,
                Check {
                    host: None,
                    signer: None,
                    path: "/.meridian/health".to_owned(),
                    status: StatusPattern { from: 200, to: 200 },
                    interval: PARENT_INTERVAL,
                    timeout: PARENT_TIMEOUT,
                    thresholds: PARENT_THRESHOLDS,
                },
            ));
        }
        let upstreams: Vec<_> = origins
            .values()
            .map(|origin| Arc::clone(&origin.upstream))
            .chain(parents.values().map(|parent| Arc::clone(&parent.upstream)))
            .collect();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                upstreams.iter().for_each(|upstream| upstream.close_idle());
            }
        });
        Self(tasks)
    }
}

struct Check {
    /// `Host`; none: the server's own.
    host: Option<String>,
    signer: Option<Arc<Signer>>,
    path: String,
    status: StatusPattern,
    interval: Duration,
    timeout: Duration,
    thresholds: Thresholds,
}

async fn watch(upstream: Arc<Upstream>, at: usize, check: Check) {
    let Some(server) = upstream.servers.get(at) else { return };
    let transport = upstream.transport();
    // A check has no business with HTTP/2, where the server speaks something else, too.
    let tls = transport.tls.as_ref().filter(|_| server.url.tls).map(|config| {
        let mut config = rustls::ClientConfig::clone(config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        (transport.name(&server.url).to_owned(), Arc::new(config))
    });
    let host = check.host.clone().unwrap_or_else(|| server.url.authority());
    let path = check.path.clone();
    let question = Question::Http { host, path, status: vec![check.status], tls, token: None };
    let mut health = Health::new(check.thresholds);
    let mut known = false;
    loop {
        let result = async {
            if transport.protocol == OriginProtocol::Http2 || check.signer.is_some() {
                return ask_over_pool(&upstream, at, &check).await;
            }
            let mut found = tokio::net::lookup_host((server.url.host.as_str(), server.url.port))
                .await
                .map_err(|error| error.to_string())?;
            let address = found.next().ok_or_else(|| "the name has no address".to_owned())?;
            ask(address, &question, check.timeout)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
        .await;
        if result.is_ok() {
            server.answered();
            known = true;
        }
        if let Some(state) = health.record(result.is_ok()) {
            server.healthy.store(state.is_usable(), Ordering::Relaxed);
            match result {
                Ok(_) => tracing::info!(upstream = &*upstream.name, server = %server.url, "is up"),
                Err(why) => {
                    tracing::warn!(upstream = &*upstream.name, server = %server.url, why, "is down");
                }
            }
        }
        let interval = if known { check.interval } else { check.interval.min(FIRST_INTERVAL) };
        tokio::time::sleep(interval).await;
    }
}

/// Asks over the connections that requests use: where only HTTP/2 is spoken, or requests must be signed.
async fn ask_over_pool(upstream: &Arc<Upstream>, at: usize, check: &Check) -> Result<(), String> {
    let ask = check.ask(upstream, at)?;
    let timeouts = Timeouts {
        connect: check.timeout,
        first_byte: check.timeout,
        between_bytes: check.timeout,
    };
    let sent = tokio::time::timeout(check.timeout, upstream.send(at, ask, timeouts));
    match sent.await {
        Ok(Ok(response)) if check.status.matches(response.status().as_u16()) => Ok(()),
        Ok(Ok(response)) => Err(format!("status {}", response.status().as_u16())),
        // Requests fill all connections: that is no sign of illness.
        Ok(Err(failed)) if failed.error.reason == Reason::OriginBusy => Ok(()),
        Ok(Err(failed)) => Err(failed.error.detail.to_string()),
        Err(_) => Err("timed out".to_owned()),
    }
}

impl Check {
    fn ask(&self, upstream: &Upstream, at: usize) -> Result<Ask, String> {
        let own = || upstream.servers.get(at).map(|server| server.url.authority());
        let host = self.host.clone().or_else(own).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("meridian-check"));
        let mut ask = Ask {
            method: Method::GET,
            target: self.path.parse().map_err(|error| format!("`{}`: {error}", self.path))?,
            authority: HeaderValue::from_str(&host).map_err(|error| error.to_string())?,
            headers,
            body: Outgoing::Empty,
            interim: None,
            upgrade: None,
        };
        if let Some(signer) = &self.signer {
            signer.sign(&mut ask, clock::now())?;
        }
        Ok(ask)
    }
}
