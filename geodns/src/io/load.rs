//! The configuration, zone files and databases as they lie on disk, to what is served. All that is wrong is found at
//! once; nothing is half loaded.

use std::collections::BTreeMap;
use std::path::Path;

use shared::config::{self, CheckKind, Loaded, Problem, RuleBy, Severity, Step};
use shared::geo;
use shared::io::files::{System, read_file, read_secret};
use shared::io::tls::client_config;
use shared::prefix::Prefix;

use crate::config::{Check, ZoneSource, checks, unasked, world, zones};
use crate::map::compare;
use crate::service::{Services, uneven};
use crate::snapshot::Tables;
use crate::world::World;
use crate::zone::{self, Builder, Location, file};

/// A zone file at most.
const MAX_ZONE_FILE: u64 = 1 << 30;
/// A database at most.
const MAX_DATABASE: u64 = 4 << 30;

/// Everything that a configuration leads to.
pub struct Loading {
    /// The configuration itself.
    pub config: Loaded,
    /// What is served.
    pub tables: Tables,
    /// The health checks, in the order of the world's.
    pub checks: Vec<Check>,
    /// What is risky.
    pub warnings: Vec<Problem>,
}

/// Loads everything.
///
/// # Errors
/// All problems.
pub fn load(path: &Path) -> Result<Loading, Vec<Problem>> {
    let config = config::load(path, &System)?;
    let mut warnings = config.warnings.clone();
    let mut errors = Vec::new();
    let world = world(&config)?;
    let sources = zones(&config, &world)?;

    let mut builder = Builder::default();
    for source in sources {
        add_zone(&config, &mut builder, source, &mut errors);
    }
    let (zones, problems) = builder.build();
    for problem in problems.iter().map(of_zone) {
        if problem.is_error() { errors.push(problem) } else { warnings.push(problem) }
    }
    let geography = geography(&config, &world, &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    let checks = checks(&config.spec, &world);
    let unusable = unusable_files(&config, &world, &checks);
    if !unusable.is_empty() {
        return Err(unusable);
    }
    warnings.extend(unasked(&config, &world, &checks));
    warnings.extend(uneven(&config, &world));
    let services = Services::new(&config.spec, &world);
    let tables = Tables::new(world, zones, geography).with_services(services);
    warnings.extend(idle_rules(&config, &tables));
    Ok(Loading { tables, config, checks, warnings })
}

/// Rules that decide for nobody, which no operator writes on purpose.
fn idle_rules(config: &Loaded, tables: &Tables) -> Vec<Problem> {
    let mut problems = Vec::new();
    let asns = &tables.geography.asns;
    let knows_no_asn = asns.v4.values().chain(asns.v6.values()).all(Option::is_none);
    for (id, policy) in (0..).zip(&tables.world.policies) {
        let Some((_, map)) = tables.policy(id) else { continue };
        for index in map.idle_rules(policy) {
            let Some(rule) = policy.rules.get(index) else { continue };
            let why = if rule.by == RuleBy::Subnet && !policy.ecs.enabled {
                "client subnets are not looked at: `ecs` = { use = false }"
            } else if !rule.asns.is_empty() && knows_no_asn {
                "no database tells of autonomous systems"
            } else {
                "no network that the databases know has all of it, or an earlier rule takes all that have"
            };
            let path = ["steering", policy.name.as_str(), "rules"].map(Step::from);
            let path: Vec<Step> = path.into_iter().chain([index.into()]).collect();
            let why = format!("this rule decides for no client: {why}");
            problems.push(config.problem(&path, Severity::Warning, why));
        }
    }
    problems
}

/// Why new databases must not take the place of those of `before`: they would move more clients than `max_moved`.
pub(super) fn moved_too_much(before: &Tables, loading: &Loading) -> Vec<Problem> {
    let most = loading.config.spec.geo.max_moved;
    let at = [Step::from("geo"), "max_moved".into()];
    let moved = compare::moved(before, &loading.tables);
    let too_much = moved.into_iter().filter(|moved| moved.share > most);
    let problem = |moved| {
        let why = format!(
            "the new databases would move {moved}, and `max_moved` allows {:.1} %: look at the databases, and raise `max_moved` when this is what you want",
            most * 100.0
        );
        loading.config.problem(&at, Severity::Error, why)
    };
    too_much.map(problem).collect()
}

/// What is wrong with the file of a nameserver's admin token.
pub fn token_problem(config: &Loaded, nameserver: &str) -> Option<Problem> {
    let file = config.spec.nameserver.get(nameserver)?.admin_token_file.as_deref()?;
    let why = read_secret(file).err()?;
    let at = [Step::from("nameserver"), nameserver.into(), "admin_token_file".into()];
    Some(config.problem(&at, Severity::Error, why))
}

/// Files that checks need and that cannot be used: with them all edges would be down.
fn unusable_files(config: &Loaded, world: &World, checks: &[Check]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for check in checks.iter().filter(|check| !check.targets.is_empty()) {
        if let (CheckKind::Https, Some(file)) = (check.kind, &check.ca_file)
            && let Err(why) = client_config(Some(file), &[])
        {
            let at = [Step::from("check"), (&check.name).into(), "ca_file".into()];
            problems.push(config.problem(&at, Severity::Error, why));
        }
        for asked in &check.targets {
            let Some(file) = &asked.token_file else { continue };
            let Some(edge) = world.edges.get(usize::from(asked.edge)) else { continue };
            if let Err(why) = read_secret(file) {
                let at = [Step::from("edge"), (&edge.name).into(), "admin_token_file".into()];
                let why = format!("{why}: check `{}` must show it", check.name);
                problems.push(config.problem(&at, Severity::Error, why));
            }
        }
    }
    problems
}

/// A problem of a zone file as one of the configuration that names it.
fn of_zone(problem: &zone::Problem) -> Problem {
    let severity = if problem.is_warning { Severity::Warning } else { Severity::Error };
    let file = Path::new(&*problem.at.file);
    match problem.at.line {
        0 => Problem { severity, ..Problem::with_file(file, problem.message.clone()) },
        line => Problem::in_line(file, line as usize, severity, problem.message.clone()),
    }
}

fn add_zone(config: &Loaded, builder: &mut Builder, source: ZoneSource, errors: &mut Vec<Problem>) {
    let (records, problems) = file::read(&source.file, &source.apex, &|path| {
        read_file(path, MAX_ZONE_FILE).map_err(|error| error.to_string())
    });
    let is_readable = problems.is_empty();
    for problem in &problems {
        // The file as a whole: the configuration's line names it.
        errors.push(match problem.at.line {
            0 => config.problem(
                &[Step::from("zone"), (&source.key).into(), "file".into()],
                Severity::Error,
                problem.message.clone(),
            ),
            _ => of_zone(problem),
        });
    }
    let whole = Location { file: source.file.to_string_lossy().into(), line: 0 };
    // A file with broken lines lacks records: what the zone then lacks is not the operator's mistake.
    if is_readable {
        builder.add(&source.apex, records, &source.steered, whole);
    }
}

fn geography(config: &Loaded, world: &World, errors: &mut Vec<Problem>) -> geo::World {
    let spec = &config.spec.geo;
    let mut databases = Vec::new();
    for (index, path) in spec.databases.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let database = read_file(path, MAX_DATABASE)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))
            .and_then(|bytes| {
                geo::Database::from_bytes(bytes, &name).map_err(|error| error.to_string())
            });
        match database {
            Ok(database) => databases.push(database),
            Err(why) => {
                let at = [Step::from("geo"), "databases".into(), index.into()];
                errors.push(config.problem(&at, Severity::Error, why));
            }
        }
    }
    let given = |networks: &BTreeMap<String, String>| -> Vec<(Prefix, String)> {
        let known = networks.iter().filter(|(_, name)| world.datacenter_id(name).is_some());
        known.filter_map(|(network, name)| Some((network.parse().ok()?, name.clone()))).collect()
    };
    geo::World::new(given(&spec.networks), &databases).with_resolvers(given(&spec.resolvers))
}
