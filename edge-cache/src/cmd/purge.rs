//! `purge`: what a node is to forget, in words for its admin API.

use bytes::Bytes;
use http::Method;
use shared::io::command::{FAILED, Global, USAGE, fail};

use super::client;
use crate::io::purge::{Done, Order};

/// What is purged. All of it at one position, or nothing if something in it is wrong.
#[derive(clap::Args)]
#[command(after_help = "\
The purge is in force on the node when the command ends: no later request is answered from older bytes, neither from \
this node's store nor from a parent that has them still.

Other nodes are not told. To purge a CDN, give the purge to each of its nodes, parents first, each with the position that \
the first one printed (`seq`):

  edge-cache --node p1 purge https://www.cdn.test/a.png
  edge-cache --node e1 purge https://www.cdn.test/a.png --position 1795266040000000")]
pub(super) struct Args {
    /// URLs, each with all its variants; without a scheme those of http and https
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// Host and whole segments of a path, such as `www.cdn.test/images/`: all below it
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// A host without port: all of it
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// A tag of Cache-Tag, Surrogate-Key or Cache-Groups; case counts
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Make it stale instead: it is validated before or while it is used, and served if that fails
    #[arg(long)]
    soft: bool,
    /// The position that another node has given this purge
    #[arg(long, value_name = "SEQ")]
    position: Option<u64>,
}

/// Purges, and returns the exit code.
pub(super) fn run(global: &Global, args: &Args) -> u8 {
    let order = Order {
        urls: args.urls.clone(),
        prefixes: args.prefixes.clone(),
        hosts: args.hosts.clone(),
        tags: args.tags.clone(),
        all: args.all,
        soft: args.soft,
        position: args.position,
    };
    let named = [&order.urls, &order.prefixes, &order.hosts, &order.tags];
    if !order.all && named.iter().all(|list| list.is_empty()) {
        return fail("what is to be purged? Name URLs, --prefix, --host, --tag or --all", USAGE);
    }
    let body = match serde_json::to_vec(&order) {
        Ok(body) => Bytes::from(body),
        Err(error) => return fail(&error.to_string(), FAILED),
    };
    client::ask_with(global, Method::POST, "/v1/purge", body, |body| {
        let done: Done = serde_json::from_slice(body)?;
        let kind = if done.soft { "soft purge" } else { "purge" };
        Ok(format!(
            "{kind} in force on {}: targets {}\nseq  {}\nid   {}",
            done.node, done.targets, done.seq, done.id
        ))
    })
}
