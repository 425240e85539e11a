//! The configuration, zone files and databases as they lie on disk, to what is served. All that is wrong is found at
//! once; nothing is half loaded.

use std::path::{Path, PathBuf};

use shared::config::{self, Loaded, Problem, Severity, Step};
use shared::geo;
use shared::io::files::System;
use shared::prefix::Prefix;

use crate::config::{Check, ZoneSource, checks, unasked, world, zones};
use crate::snapshot::Tables;
use crate::world::World;
use crate::zone::{Builder, Location, file};

/// Where the configuration is looked for when it is not named.
pub const DEFAULT_PATHS: [&str; 2] = ["meridian.toml", "/etc/meridian/meridian.toml"];

/// A zone file at most.
const MAX_ZONE_FILE: u64 = 1 << 30;

/// Everything that a configuration leads to.
pub struct Loading {
    /// The configuration itself.
    pub config: Loaded,
    /// What is served.
    pub tables: Tables,
    /// The health checks, in the order of the world's.
    pub checks: Vec<Check>,
    /// What is risky, ready to be shown.
    pub warnings: Vec<String>,
}

/// The configuration's path: the one named, else the first default that exists.
pub fn find(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let found = DEFAULT_PATHS.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        format!("there is no {}: name the file with --config", DEFAULT_PATHS.join(" and no "))
    })
}

/// Loads everything.
///
/// # Errors
/// All problems, each ready to be shown.
pub fn load(path: &Path) -> Result<Loading, Vec<String>> {
    let shown =
        |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Vec<_>>();
    let config = config::load(path, &System).map_err(shown)?;
    let mut warnings = shown(config.warnings.clone());
    let mut errors = Vec::new();
    let world = world(&config).map_err(shown)?;
    let sources = zones(&config, &world).map_err(shown)?;

    let mut builder = Builder::default();
    for source in sources {
        add_zone(&mut builder, source, &mut errors);
    }
    let (zones, problems) = builder.build();
    for problem in problems {
        let line = match problem.is_warning {
            true => format!("{problem} (warning)"),
            false => problem.to_string(),
        };
        if problem.is_warning { warnings.push(line) } else { errors.push(line) }
    }
    let geography = geography(&config, &world, &mut errors);
    if !errors.is_empty() {
        errors.extend(warnings);
        return Err(errors);
    }
    let checks = checks(&config.spec, &world);
    warnings.extend(shown(unasked(&config, &world, &checks)));
    Ok(Loading { tables: Tables::new(world, zones, geography), config, checks, warnings })
}

fn add_zone(builder: &mut Builder, source: ZoneSource, errors: &mut Vec<String>) {
    let (records, problems) = file::read(&source.file, &source.apex, &|path| {
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > MAX_ZONE_FILE {
            return Err("larger than 1 GiB".to_owned());
        }
        std::fs::read(path).map_err(|error| error.to_string())
    });
    let is_readable = problems.is_empty();
    errors.extend(problems.iter().map(ToString::to_string));
    let whole = Location { file: source.file.to_string_lossy().into(), line: 0 };
    // A file with broken lines lacks records: what the zone then lacks is not the operator's mistake.
    if is_readable {
        builder.add(&source.apex, records, source.steered, whole);
    }
}

fn geography(config: &Loaded, world: &World, errors: &mut Vec<String>) -> geo::World {
    let spec = &config.spec.geo;
    let mut databases = Vec::new();
    for (index, path) in spec.databases.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let database = std::fs::read(path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))
            .and_then(|bytes| {
                geo::Database::from_bytes(bytes, &name).map_err(|error| error.to_string())
            });
        match database {
            Ok(database) => databases.push(database),
            Err(why) => {
                let at = [Step::from("geo"), "databases".into(), index.into()];
                errors.push(config.problem(&at, Severity::Error, why).to_string());
            }
        }
    }
    let networks = spec.networks.iter().filter_map(|(network, datacenter)| {
        world.datacenter_id(datacenter)?;
        Some((network.parse::<Prefix>().ok()?, datacenter.clone()))
    });
    geo::World::new(networks, &databases)
}
