//! Slow readers over HTTP/2: many streams on each connection, each with a window of its own that it opens slowly.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use rustls::pki_types::ServerName;
use shared::io::tls::unverified_client_config;
use tokio::time::sleep;

use crate::origin::Pattern;
use crate::{Args, Readers, connect};

/// Readers on one connection.
const STREAMS: u64 = 100;
/// What each takes before the node has to wait.
const WINDOW: u32 = 16 << 10;

/// What becomes of them.
pub(crate) async fn slow_readers(
    args: &Args,
    address: SocketAddr,
    pattern: &Arc<Pattern>,
) -> anyhow::Result<Rc<Readers>> {
    let all = Rc::new(Readers::default());
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let readers = args.readers as u64;
    let mut tasks = Vec::new();
    for connection in 0..readers.div_ceil(STREAMS) {
        let Ok(client) = client(address).await else {
            all.refuse(STREAMS);
            continue;
        };
        for number in connection * STREAMS..readers.min((connection + 1) * STREAMS) {
            let (all, pattern) = (Rc::clone(&all), Arc::clone(pattern));
            let (client, rate, length) = (client.clone(), args.rate, args.object);
            let offset = length / readers * number;
            tasks.push(tokio::task::spawn_local(async move {
                match slow_reader(client, offset, length, rate, end, &pattern, &all).await {
                    Err(error) if error.downcast_ref::<h2::Error>().is_none() => Err(error),
                    Err(_) => {
                        all.cut();
                        Ok(())
                    }
                    Ok(()) => anyhow::Ok(()),
                }
            }));
        }
    }
    for task in tasks {
        task.await??;
    }
    Ok(all)
}

async fn slow_reader(
    client: SendRequest<Bytes>,
    offset: u64,
    length: u64,
    rate: u64,
    end: Instant,
    pattern: &Pattern,
    all: &Readers,
) -> anyhow::Result<()> {
    let mut client = client.ready().await?;
    let request =
        Request::get("https://bench.test/big").header("range", format!("bytes={offset}-"));
    let (response, _) = client.send_request(request.body(())?, true)?;
    drop(client);
    let response = response.await?;
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        all.refuse(1);
        return Ok(());
    }
    ensure!(response.status() == StatusCode::PARTIAL_CONTENT, "{}", response.status());
    let mut body = response.into_body();
    let mut at = offset;
    while Instant::now() < end && at < length {
        let mut left = rate.min(length - at);
        while left > 0 {
            let Some(data) = body.data().await else {
                ensure!(at == length, "the end at {at}");
                return Ok(());
            };
            let data = data?;
            let got = data.len() as u64;
            ensure!(data == pattern.at(at, got), "wrong bytes at {at}");
            at += got;
            left = left.saturating_sub(got);
            all.add(got);
            body.flow_control().release_capacity(data.len())?;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn client(address: SocketAddr) -> anyhow::Result<SendRequest<Bytes>> {
    // The node's certificate is its own.
    let config = unverified_client_config(&[b"h2"]).map_err(anyhow::Error::msg)?;
    let stream = connect(address).await?;
    let name = ServerName::try_from("bench.test")?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW * 100);
    let (client, connection) = builder.handshake(stream).await?;
    tokio::task::spawn_local(async move { connection.await.map_err(|error| error.is_io()) });
    let ready = client.ready().await;
    ready.map_err(|_| std::io::Error::from(ErrorKind::ConnectionRefused).into())
}
