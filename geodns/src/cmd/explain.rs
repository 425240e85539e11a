//! `explain`: by a running node with the health it sees, else from the configuration with everything presumed up.

use std::net::IpAddr;

use shared::config::listing;
use shared::io::admin::percent_encode;
use shared::prefix::Prefix;

use super::{
    BAD_CONFIG, CallError, DONE, FAILED, Global, Output, call, fail, nodes, print, print_json,
};
use crate::explain::{Explained, Request, explain};
use crate::io::load;
use crate::name::Name;
use crate::rtype;
use crate::snapshot::Snapshot;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name to ask for; on a name server itself `dig TXT _explain.NAME` tells it in short
    #[arg(value_parser = Name::parse_absolute)]
    name: Name,
    /// Record type
    #[arg(long = "type", default_value = "A", value_parser = parse_type)]
    rtype: u16,
    /// Address that the query comes from: the resolver's
    #[arg(long, value_name = "IP")]
    client: IpAddr,
    /// Client subnet that the resolver sends along
    #[arg(long, value_name = "NET")]
    subnet: Option<Prefix>,
    /// Ask no running node: everything is presumed up
    #[arg(long)]
    offline: bool,
}

pub(super) fn parse_type(text: &str) -> Result<u16, String> {
    rtype::parse(text).ok_or_else(|| format!("`{text}` is not a record type"))
}

pub(super) fn run(global: &Global, args: &Args) -> u8 {
    let explained = match ask_node(global, args) {
        Ok(Some((node, explained))) => {
            if global.output == Output::Table {
                fail(&format!("as {node} sees it"), DONE);
            }
            explained
        }
        Ok(None) => match from_configuration(global, args) {
            Ok(explained) => explained,
            Err(code) => return code,
        },
        Err(code) => return code,
    };
    match global.output {
        Output::Json => print_json(&explained),
        Output::Table => print(&explained.to_string()),
    }
    DONE
}

/// The explanation of the first node that answers.
fn ask_node(global: &Global, args: &Args) -> Result<Option<(String, Explained)>, u8> {
    if args.offline {
        return Ok(None);
    }
    let mut target = format!(
        "/v1/explain?name={}&type={}&client={}",
        percent_encode(&args.name.to_string()),
        rtype::Shown(args.rtype),
        percent_encode(&args.client.to_string())
    );
    if let Some(subnet) = args.subnet {
        target += &format!("&subnet={}", percent_encode(&subnet.to_string()));
    }
    for (name, node) in nodes(global)? {
        match call(&node, http::Method::GET, &target) {
            Ok(body) => {
                let explained = serde_json::from_slice(&body)
                    .map_err(|error| fail(&format!("{name}: {error}"), FAILED))?;
                return Ok(Some((name, explained)));
            }
            Err(CallError::Refused(_, why)) => return Err(fail(&format!("{name}: {why}"), FAILED)),
            Err(CallError::Unreachable(_)) => {}
        }
    }
    if global.output == Output::Table {
        fail("no node is running: from the configuration, with everything presumed up", DONE);
    }
    Ok(None)
}

fn from_configuration(global: &Global, args: &Args) -> Result<Explained, u8> {
    let path = global.config_path()?;
    let loading = load::load(&path).map_err(|problems| fail(&listing(&problems), BAD_CONFIG))?;
    let snapshot = Snapshot::presumed_up(loading.tables);
    let request = Request {
        name: args.name.clone(),
        qtype: args.rtype,
        client: args.client,
        subnet: args.subnet,
    };
    explain(&snapshot, &request).map_err(|why| fail(&why, FAILED))
}
