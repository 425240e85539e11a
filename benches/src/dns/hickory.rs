//! hickory-server with its own catalog, zone store and UDP loop: what serving with the library as it comes would cost.
//! One thread, static zones.

use std::net::SocketAddrV4;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;

use anyhow::Context as _;
use hickory_proto::rr::{LowerName, Name};
use hickory_server::Server;
use hickory_server::store::file::{FileConfig, FileZoneHandler};
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};

/// Serves `ZONE.zone` of `dir` for every one of `zones` until it is killed.
pub fn serve(address: SocketAddrV4, dir: &Path, zones: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut catalog = Catalog::new();
        for zone in zones {
            let origin = Name::from_str(&format!("{zone}."))?;
            let config = FileConfig { zone_path: dir.join(format!("{zone}.zone")) };
            let handler = FileZoneHandler::try_from_config(
                origin.clone(),
                ZoneType::Primary,
                AxfrPolicy::Deny,
                None,
                &config,
            )
            .map_err(anyhow::Error::msg)?;
            catalog.upsert(LowerName::new(&origin), vec![Arc::new(handler)]);
        }
        let mut server = Server::new(catalog);
        server.register_socket(tokio::net::UdpSocket::bind(address).await?);
        server.block_until_done().await.context("hickory-server ended")
    })
}
