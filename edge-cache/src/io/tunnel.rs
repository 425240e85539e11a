//! Connections that are switched to another protocol (RFC 9110 §7.8): after the origin's 101, and not before, bytes are
//! carried both ways, unseen, until either side closes or both are silent for the edge's `idle`.
//!
//! Only on routes whose `upgrade` lists the protocol, over HTTP/1.1, straight to the origin: a parent would gain nothing. A
//! tunnel counts as a request under way and as one of the origin's connections for as long as it lasts; its line in the
//! access log is written when it ends, with the bytes that went to the client.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::ask::Outgoing;
use super::body::ResponseBody;
use super::fetch::{Fetched, Wanted, fetch};
use super::pool::Lease;
use super::respond;
use super::serve::Context;
use super::telemetry::Exchange;
use crate::semantics::Reason;
use crate::semantics::headers::strip_hop_by_hop;

/// What is read at once, each way.
const READ: usize = 16 << 10;
/// How long the other side may go on after one has closed.
const AFTER_CLOSE: Duration = Duration::from_secs(5);

/// What a client's connection may be switched to, and the connection, once it is.
pub(super) struct Offer {
    /// The protocol: one that the client offers and the route allows.
    pub(super) protocol: HeaderValue,
    /// The client's connection.
    pub(super) client: OnUpgrade,
}

impl Context<'_> {
    /// Asks the origin to switch. What answers with anything but 101 answers as always.
    pub(super) async fn pass_upgrade(
        &self,
        mut exchange: Box<Exchange>,
        offer: Offer,
    ) -> Response<ResponseBody> {
        exchange.reason = Reason::UpgradeRequested;
        let node = self.node();
        let interim = self.early.sink();
        let wanted = Wanted {
            method: self.request.method.clone(),
            scheme: self.scheme,
            authority: self.authority.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
            headers: self.headers(None, &[]),
            key: 0,
            interim: interim.clone(),
            upgrade: Some(offer.protocol.clone()),
            client: Some(self.client),
            fence: self.since().fence,
            floor: self.needed,
        };
        let registry = &node.telemetry.registry;
        let asked = fetch(registry, self.route, None, &wanted, Outgoing::Empty);
        let fetched = match self.early.relay(interim.as_deref(), asked).await {
            Ok(fetched) => fetched,
            Err(error) => {
                exchange.upstream = Some(Arc::clone(&error.upstream));
                let (reason, fwd) = (error.reason, Reason::UpgradeRequested.fwd());
                return respond::error(exchange, &node.name, reason, Some(&error.upstream), fwd);
            }
        };
        if fetched.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return self.answer_from_upstream(exchange, fetched, Reason::UpgradeRequested);
        }
        self.switch(exchange, offer, fetched)
    }

    /// Tells the client, and carries bytes from then on.
    fn switch(
        &self,
        mut exchange: Box<Exchange>,
        offer: Offer,
        fetched: Fetched,
    ) -> Response<ResponseBody> {
        let node = self.node();
        exchange.upstream = Some(Arc::clone(&fetched.upstream));
        exchange.status = StatusCode::SWITCHING_PROTOCOLS;
        let (parts, body) = fetched.response.into_parts();
        let Some((origin, lease)) = body.into_connection() else {
            let fwd = Reason::UpgradeRequested.fwd();
            return respond::error(exchange, &node.name, Reason::BadResponse, None, fwd);
        };
        let mut headers = parts.headers;
        strip_hop_by_hop(&mut headers);
        respond::mark_switched(&mut headers, &node.name);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, offer.protocol);
        let idle = self.snapshot.plan.edge.idle.get();
        // From here on no byte of the client's is looked at.
        self.connection.gate.switch();
        tokio::spawn(carry(exchange, offer.client, origin, lease, idle));
        respond::response(parts.status, headers, ResponseBody::empty())
    }
}

/// Carries bytes both ways until the end.
async fn carry(
    mut exchange: Box<Exchange>,
    client: OnUpgrade,
    origin: OnUpgrade,
    lease: Lease,
    idle: Duration,
) {
    let (Ok(Ok(client)), Ok(Ok(origin))) =
        (timeout(idle, client).await, timeout(idle, origin).await)
    else {
        return;
    };
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_origin, mut to_origin) = tokio::io::split(TokioIo::new(origin));
    let moved = Notify::new();
    let up = copy(&mut from_client, &mut to_origin, |_| moved.notify_one());
    let down = copy(&mut from_origin, &mut to_client, |length| {
        moved.notify_one();
        exchange.add_sent(length as u64);
    });
    let silence = async { while timeout(idle, moved.notified()).await.is_ok() {} };
    let whole = {
        let mut up = std::pin::pin!(up);
        let mut down = std::pin::pin!(down);
        tokio::select! {
            closed = &mut up => closed.is_ok() && timeout(AFTER_CLOSE, down).await.is_ok(),
            closed = &mut down => closed.is_ok() && timeout(AFTER_CLOSE, up).await.is_ok(),
            () = silence => false,
        }
    };
    exchange.whole = whole;
    drop(lease);
}

/// Carries bytes one way until their end, which is passed on.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut moved: impl FnMut(usize),
) -> std::io::Result<()> {
    let mut buffer = vec![0; READ];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            length => {
                to.write_all(buffer.get(..length).unwrap_or_default()).await?;
                to.flush().await?;
                moved(length);
            }
        }
    }
}

/// The first protocol of the client's list that the route allows (RFC 9110 §7.8), in the route's spelling.
pub(super) fn chosen(headers: &HeaderMap, allowed: &[HeaderValue]) -> Option<HeaderValue> {
    let lines = headers.get_all(UPGRADE).iter();
    let mut offered = lines.flat_map(|line| line.as_bytes().split(|b| *b == b','));
    offered.find_map(|name| {
        let same =
            |protocol: &&HeaderValue| protocol.as_bytes().eq_ignore_ascii_case(name.trim_ascii());
        allowed.iter().find(same).cloned()
    })
}
