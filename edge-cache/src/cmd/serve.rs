//! `serve`: starts a node, carries out orders, and ends it without cutting requests.

use std::process::ExitCode;
use std::sync::Arc;

use shared::io::run::{Order, Orders};
use shared::io::{admin, files};
use tokio::sync::mpsc;

use super::{BAD_CONFIGURATION, DONE, FAILED, fail};
use crate::io::admin::{ReloadRequest, handler};
use crate::io::listen::Workers;
use crate::io::node::{LoadError, Node, Source, load};

/// Runs the node until it is told to stop.
pub(super) fn run(source: Source) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error),
    };
    runtime.block_on(async {
        match serve(source).await {
            Ok(()) => ExitCode::from(DONE),
            Err((code, message)) => fail(code, &message),
        }
    })
}

type Failure = (u8, String);

async fn serve(source: Source) -> Result<(), Failure> {
    let bad = |error: LoadError| (BAD_CONFIGURATION, error.to_string());
    let failed = |error: &dyn std::fmt::Display| (FAILED, error.to_string());
    let (loaded, plan) = load(&source).map_err(bad)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let edge = plan.edge.clone();
    let token = match &edge.admin_token_file {
        Some(path) => Some(files::read_secret(path).map_err(|error| (BAD_CONFIGURATION, error))?),
        None => None,
    };
    let mut orders = Orders::listen().map_err(|error| failed(&error))?;
    let node = Node::new(source, plan).map_err(bad)?;
    let mut workers = Workers::start(&node, edge.workers).map_err(|error| failed(&error))?;
    let listener = tokio::net::TcpListener::bind(edge.admin).await;
    let listener =
        listener.map_err(|error| failed(&format!("cannot listen on {}: {error}", edge.admin)))?;
    let addresses = workers.listen(&edge.http, &edge.https).map_err(|error| failed(&error))?;
    let (reloads, mut asked) = mpsc::channel::<ReloadRequest>(16);
    let api = tokio::spawn(admin::serve(listener, token, handler(&node, reloads)));
    tracing::info!(node = &*node.name, ?addresses, admin = %edge.admin, "is serving");
    loop {
        tokio::select! {
            order = orders.next() => match order {
                Order::Reload => {
                    // What is wrong has been logged.
                    let _ = reload(&node, &mut workers);
                }
                Order::Stop => break,
            },
            Some(answer) = asked.recv() => {
                // Whoever asked may have gone.
                let _ = answer.send(reload(&node, &mut workers));
            }
        }
    }
    tracing::info!("is ending: finishing the requests that it has");
    node.stop();
    let joined = tokio::task::spawn_blocking(move || workers.join());
    tokio::select! {
        _ = joined => {}
        // A second order means now.
        () = second(&mut orders) => tracing::warn!("was told twice to stop: requests are cut off"),
    }
    api.abort();
    Ok(())
}

async fn second(orders: &mut Orders) {
    while orders.next().await != Order::Stop {}
}

fn reload(node: &Arc<Node>, workers: &mut Workers) -> Result<(), String> {
    let old = node.snapshot.load_full();
    let result = node.reload().map_err(|error| error.to_string()).and_then(|new| {
        workers.listen(&new.plan.edge.http, &new.plan.edge.https).map_err(|error| {
            // All or nothing: the old configuration goes on.
            node.restore(old);
            error.to_string()
        })
    });
    match result {
        Ok(_) => {
            tracing::info!("the configuration was read again and is in use");
            Ok(())
        }
        Err(why) => {
            tracing::error!("the configuration in use goes on; the new one cannot be used:\n{why}");
            Err(why)
        }
    }
}
