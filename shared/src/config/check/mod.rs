//! What a configuration says must fit together: names exist, values are in bounds, nothing is listened on twice.
//!
//! Errors are what cannot work; warnings are what works until the day it hurts.

/// A path into the configuration.
macro_rules! path {
    ($($step:expr),* $(,)?) => { vec![$(Step::from($step)),*] };
}

mod caching;
mod dns;
mod http;
mod nodes;
mod route;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::MAX_PROBLEMS;
use super::document::{Part, Step};
use super::problem::{Severity, nearest};
use super::spec::*;
use super::values::*;

/// Something wrong, before it has its place.
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) path: Vec<Step>,
    pub(super) part: Part,
    pub(super) message: String,
}

/// Everything wrong with `spec`. `written` says whether any file has such a table, of this name where one is given, even if
/// it could not be read: references to it are then not reported as well.
pub(super) fn check(spec: &Spec, written: &dyn Fn(&str, Option<&str>) -> bool) -> Vec<Finding> {
    let mut check = Check { spec, written, findings: Vec::new() };
    if spec.nameserver.is_empty() && spec.edge.is_empty() {
        check.warn(
            Vec::new(),
            "there is no `[nameserver.NAME]` and no `[edge.NAME]`: nothing can be started",
        );
    }
    check.names();
    check.geo();
    check.log();
    check.datacenters();
    check.nameservers();
    check.edges();
    check.listeners();
    check.zones();
    for (name, policy) in &spec.steering {
        check.steering(name, policy);
    }
    for (name, probe) in &spec.check {
        check.probe(name, probe);
    }
    for (name, origin) in &spec.origin {
        check.origin(name, origin);
    }
    for (name, policy) in &spec.cache {
        check.cache(name, policy);
        check.caching(name, policy);
    }
    for (name, tier) in &spec.tier {
        check.tier(name, tier);
    }
    check.signing();
    check.sites();
    check.findings
}

struct Check<'a> {
    spec: &'a Spec,
    written: &'a dyn Fn(&str, Option<&str>) -> bool,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn error(&mut self, path: Vec<Step>, message: impl Into<String>) {
        let (severity, part) = (Severity::Error, Part::Value);
        self.findings.push(Finding { severity, path, part, message: message.into() });
    }

    fn error_at_key(&mut self, path: Vec<Step>, message: impl Into<String>) {
        let (severity, part) = (Severity::Error, Part::Key);
        self.findings.push(Finding { severity, path, part, message: message.into() });
    }

    fn warn(&mut self, path: Vec<Step>, message: impl Into<String>) {
        let (severity, part) = (Severity::Warning, Part::Value);
        self.findings.push(Finding { severity, path, part, message: message.into() });
    }

    fn warn_at_key(&mut self, path: Vec<Step>, message: impl Into<String>) {
        let (severity, part) = (Severity::Warning, Part::Key);
        self.findings.push(Finding { severity, path, part, message: message.into() });
    }

    /// `name`, written at `path`, must be one of a table's.
    fn refer<T>(&mut self, path: Vec<Step>, table: &str, known: &BTreeMap<String, T>, name: &str) {
        if known.contains_key(name) || (self.written)(table, Some(name)) {
            return;
        }
        // Of very many mistakes the later ones are not shown: no search for what they meant.
        let is_shown = self.findings.len() <= MAX_PROBLEMS;
        let near = is_shown.then(|| nearest(name, known.keys().map(String::as_str))).flatten();
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        self.error(path, format!("there is no {table} `{name}`{hint}"));
    }

    fn within<T: PartialOrd + std::fmt::Display>(
        &mut self,
        path: Vec<Step>,
        value: T,
        low: T,
        high: T,
    ) {
        if !(low <= value && value <= high) {
            let name = match path.last() {
                Some(Step::Key(key)) => key.clone(),
                _ => "value".to_owned(),
            };
            self.error(path, format!("{name} must be between {low} and {high}, not {value}"));
        }
    }

    fn no_zero(&mut self, path: Vec<Step>, value: Dur, least: Duration) {
        if value.get() < least {
            let least = crate::time::format_duration(least);
            self.error(path, format!("this must be at least {least}"));
        }
    }

    fn timing(&mut self, table: &[&str], interval: Dur, timeout: Dur, down: u16, up: u16) {
        let at = |key: &str| -> Vec<Step> {
            table.iter().map(|step| Step::from(*step)).chain([Step::from(key)]).collect()
        };
        self.no_zero(at("interval"), interval, Duration::from_millis(50));
        self.no_zero(at("timeout"), timeout, Duration::from_millis(10));
        if timeout > interval {
            self.error(at("timeout"), "`timeout` must not be longer than `interval`");
        }
        self.within(at("down_after"), down, 1, 1000);
        self.within(at("up_after"), up, 1, 1000);
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Labels of letters, digits, `-` and `_`, 63 at most, 253 in all.
fn is_domain_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_owner_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    name == "*" || is_domain_name(name)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// A name or an address, with or without a port.
fn is_host(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
        return true;
    }
    match host.rsplit_once(':') {
        Some((name, port)) => is_domain_name(name) && port.parse::<u16>().is_ok(),
        None => is_domain_name(host),
    }
}

fn is_field_content(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}
