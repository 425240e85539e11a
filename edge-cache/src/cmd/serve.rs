//! `serve`: starts a node, carries out orders, and ends it without cutting requests.
#![expect(clippy::disallowed_methods, reason = "the admin API is a task of the node's main thread")]

use std::sync::Arc;

use shared::config::listing;
use shared::io::command::{BAD_CONFIG, DONE, FAILED, Global, fail};
use shared::io::run::{Order, Orders};
use shared::io::{admin, files};
use tokio::sync::mpsc;

use super::configuration;
use crate::io::admin::{ReloadRequest, handler};
use crate::io::limit;
use crate::io::listen::Workers;
use crate::io::node::{Node, Source, unusable_files};

/// Runs the node until it is told to stop.
pub(super) fn run(global: &Global) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string(), FAILED),
    };
    match runtime.block_on(serve(global)) {
        Ok(()) => DONE,
        Err(code) => code,
    }
}

async fn serve(global: &Global) -> Result<(), u8> {
    let bad = |why: String| fail(&why, BAD_CONFIG);
    let failed = |error: &dyn std::fmt::Display| fail(&error.to_string(), FAILED);
    let (loaded, plan) = configuration(global)?;
    let unusable = unusable_files(&loaded, &[&plan.node]);
    if !unusable.is_empty() {
        return Err(bad(listing(&unusable)));
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let edge = plan.edge.clone();
    let token =
        edge.admin_token_file.as_deref().map(files::read_secret).transpose().map_err(bad)?;
    let source = Source { path: global.config_path()?, node: Some(plan.node.clone()) };
    let mut orders = Orders::listen().map_err(|error| failed(&error))?;
    let node = Node::new(source, plan).map_err(bad)?;
    limit::keep(&node);
    let mut workers = Workers::start(&node, edge.workers).map_err(|error| failed(&error))?;
    let listener = tokio::net::TcpListener::bind(edge.admin).await;
    let listener = listener.map_err(|error| {
        failed(&format!("cannot listen on {}, the `admin` of this edge: {error}", edge.admin))
    })?;
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
    node.settle().await;
    Ok(())
}

async fn second(orders: &mut Orders) {
    while orders.next().await != Order::Stop {}
}

fn reload(node: &Arc<Node>, workers: &mut Workers) -> Result<(), String> {
    let old = node.snapshot.load_full();
    let result = node.reload().and_then(|new| {
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
