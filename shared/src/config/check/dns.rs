//! Zones, steering policies and the checks of edges.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Check, is_domain_name, is_field_content, is_host, is_owner_name};
use crate::config::document::Step;
use crate::config::spec::*;
use crate::config::values::*;
use crate::prefix::Prefix;

impl Check<'_> {
    pub(super) fn zones(&mut self) {
        let spec = self.spec;
        for (zone, content) in &spec.zone {
            if !is_domain_name(zone.strip_suffix('.').unwrap_or(zone)) {
                self.error_at_key(path!["zone", zone], format!("`{zone}` is not a domain name"));
            }
            for (owner, policy) in &content.steer {
                let at = path!["zone", zone, "steer", owner];
                if owner != "@" && !is_owner_name(owner) {
                    self.error_at_key(
                        at.clone(),
                        format!("`{owner}` is not a name relative to the zone: write \"www\", \"*.img\" or \"@\""),
                    );
                }
                self.refer(at.clone(), "steering", &spec.steering, policy);
                let below = owner.strip_suffix(zone.trim_end_matches('.'));
                if below.is_some_and(|below| below.is_empty() || below.ends_with('.')) {
                    self.warn_at_key(
                        at,
                        format!("names are relative to the zone: this is `{owner}.{zone}`"),
                    );
                }
                let under = owner.split_once('.').map_or("", |(_, rest)| rest);
                let wildcard = if under.is_empty() { "*".to_owned() } else { format!("*.{under}") };
                if !owner.starts_with('*') && content.steer.contains_key(&wildcard) {
                    self.warn(
                        path!["zone", zone, "steer", &wildcard],
                        format!("a wildcard over the steered name `{owner}`: were it removed, the wildcard would answer for it"),
                    );
                }
            }
        }
    }

    pub(super) fn steering(&mut self, name: &str, policy: &SteeringSpec) {
        let spec = self.spec;
        let at = |key: &str| path!["steering", name, key];
        for (index, datacenter) in policy.datacenters.iter().enumerate() {
            let path = path!["steering", name, "datacenters", index];
            if policy.datacenters[..index].contains(datacenter) {
                self.error(path.clone(), format!("`{datacenter}` is listed twice"));
            }
            self.refer(path, "datacenter", &spec.datacenter, datacenter);
        }
        let pool: BTreeSet<&String> = match policy.datacenters.is_empty() {
            true => spec.datacenter.keys().collect(),
            false => policy.datacenters.iter().collect(),
        };
        match pool.len() {
            // One that could not be read has been reported.
            0 if (self.written)("datacenter", None) => {}
            0 => self.error_at_key(path!["steering", name], "there is no datacenter to steer to"),
            1 => self.warn(
                path!["steering", name],
                "a datacenter alone in its pool: when it fails there is no other to send clients to",
            ),
            _ => {}
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            self.rule(name, index, rule, &pool);
        }
        self.within(at("answers"), policy.answers, 1, 16);
        self.within(at("min_up"), policy.min_up, 0.0, 1.0);
        let ttl = path!["steering", name, "ttl"];
        if policy.ttl.min > policy.ttl.max {
            self.error(ttl.clone(), "`min` must not be more than `max`");
        }
        if policy.ttl.max.get() > Duration::from_secs(i32::MAX as u64) {
            self.error(ttl.clone(), "a TTL is 2147483647 s at most (RFC 2181 §8)");
        }
        match &policy.check {
            None => self.warn(
                path!["steering", name],
                "without a `check` clients are sent to datacenters that are down",
            ),
            Some(check) => self.refer(at("check"), "check", &spec.check, check),
        }
        for (key, length) in [("min", policy.ttl.min), ("max", policy.ttl.max)] {
            if length.get().subsec_nanos() > 0 {
                self.warn(
                    path!["steering", name, "ttl", key],
                    format!("a TTL is whole seconds: this is {} s", length.get().as_secs()),
                );
            }
        }
        if let Some(check) = policy.check.as_ref().and_then(|check| spec.check.get(check)) {
            let enough = (check.detection() * 10).max(Duration::from_secs(60));
            if policy.ttl.max.get() > enough {
                let enough = crate::time::format_duration(enough);
                self.warn(
                    ttl,
                    format!("resolvers keep an answer longer than failover needs: the check would allow `max` = \"{enough}\""),
                );
            }
        }
        if let AllDown::Fallback(datacenter) = &policy.all_down {
            self.refer(at("all_down"), "datacenter", &spec.datacenter, datacenter);
        }
        for (datacenter, share) in &policy.max_share {
            let path = path!["steering", name, "max_share", datacenter];
            self.within(path.clone(), *share, 0.0, 1.0);
            self.refer(path.clone(), "datacenter", &spec.datacenter, datacenter);
            if spec.datacenter.contains_key(datacenter) && !pool.contains(datacenter) {
                self.error_at_key(
                    path,
                    format!("`{datacenter}` is not among the policy's `datacenters`"),
                );
            }
        }
        self.parts(name, policy, &pool);
        self.within(at("bounded_load"), policy.bounded_load, 1.0, 100.0);
        let shed = |key: &str| path!["steering", name, "shed", key];
        self.within(shed("above"), policy.shed.above, 0.0, 1.0);
        self.within(shed("resume"), policy.shed.resume, 0.0, 1.0);
        if policy.shed.above > 0.0 && policy.shed.resume >= policy.shed.above {
            self.error(shed("resume"), "`resume` must be less than `above`");
        }
        if policy.shed.above > 0.0 && policy.shed.resume <= 0.0 {
            self.error(shed("resume"), "no load is less than 0: clients would never come back");
        }
        if policy.shed.above <= 0.0 && policy.shed.resume > 0.0 {
            self.warn(path!["steering", name, "shed"], "without `above` nothing is ever shed");
        }
        if policy.ramp.get() > Duration::ZERO && policy.check.is_none() {
            self.warn(
                at("ramp"),
                "without a `check` a datacenter returns only from the operator's drain",
            );
        }
        self.finer_networks(name, policy, &pool);
        self.within(path!["steering", name, "ecs", "max_v4"], policy.ecs.max_v4, 0, 32);
        self.within(path!["steering", name, "ecs", "max_v6"], policy.ecs.max_v6, 0, 128);
    }

    /// Networks that no scope can tell from their neighbours.
    fn finer_networks(&mut self, name: &str, policy: &SteeringSpec, pool: &BTreeSet<&String>) {
        if !policy.ecs.enabled {
            return;
        }
        let is_finer = |network: &Prefix| match network.network() {
            std::net::IpAddr::V4(_) => network.length() > policy.ecs.max_v4,
            std::net::IpAddr::V6(_) => network.length() > policy.ecs.max_v6,
        };
        let networks = &self.spec.geo.networks;
        let given = networks.iter().filter(|(_, datacenter)| pool.contains(datacenter));
        let by_rule = policy.rules.iter().filter(|rule| rule.by != RuleBy::Resolver);
        let of_rules = by_rule.flat_map(|rule| &rule.network);
        let all = given.map(|(network, _)| network).chain(of_rules);
        let finer: Vec<Prefix> =
            all.filter_map(|network| network.parse().ok()).filter(is_finer).collect();
        if let Some(first) = finer.first() {
            let more = match finer.len() {
                1 => String::new(),
                count => format!(" and {} others", count - 1),
            };
            self.warn(
                path!["steering", name],
                format!("{first}{more} is longer than scopes may be (`ecs`): a client subnet gets what the first address of the wider network gets"),
            );
        }
    }

    /// What makes a datacenter take a part of its clients only.
    fn parts(&mut self, name: &str, policy: &SteeringSpec, pool: &BTreeSet<&String>) {
        let at = |key: &str| path!["steering", name, key];
        if !policy.max_share.is_empty() && policy.order == Order::Weighted {
            self.error(
                at("max_share"),
                "with `order` = \"weighted\" shares follow the datacenters' `weight`: say it there",
            );
        }
        let most: f64 = policy.max_share.values().sum();
        if most < 1.0 && pool.iter().all(|datacenter| policy.max_share.contains_key(*datacenter)) {
            self.warn(
                at("max_share"),
                format!("all together take {most} of the clients: the others stay with their first choice"),
            );
        }
        let weighs = pool.iter().filter_map(|datacenter| self.spec.datacenter.get(*datacenter));
        let weights: Vec<u32> = weighs.map(|datacenter| datacenter.weight).collect();
        if policy.order == Order::Weighted && !weights.is_empty() && weights.iter().all(|w| *w == 0)
        {
            self.warn(
                at("order"),
                "all its datacenters have `weight` = 0: one of them would take all clients",
            );
        }
        let is_sticky = matches!(policy.pick, Pick::HashClient | Pick::HashName);
        if !is_sticky && policy.bounded_load != SteeringSpec::default().bounded_load {
            self.warn(
                at("bounded_load"),
                "only `pick` = \"hash-client\" and \"hash-name\" look at it",
            );
        }
        let has_parts =
            policy.ramp > Dur::ZERO || policy.shed.above > 0.0 || !policy.max_share.is_empty();
        let is_coarse = policy.ecs.max_v4 < 16 || policy.ecs.max_v6 < 32;
        if has_parts && policy.ecs.enabled && is_coarse {
            self.warn(
                at("ecs"),
                "`ramp`, `shed` and `max_share` move client networks as wide as `max_v4` and `max_v6`: 16 and 32 would be fine enough",
            );
        }
        let kind =
            policy.check.as_ref().and_then(|check| self.spec.check.get(check)).map(|c| c.kind);
        if policy.shed.above > 0.0 && kind.is_some_and(|kind| kind != CheckKind::Report) {
            self.warn(
                at("shed"),
                "the load of an edge is known by its report only: this needs a `check` of kind \"report\"",
            );
        }
    }

    fn rule(&mut self, policy: &str, index: usize, rule: &RuleSpec, pool: &BTreeSet<&String>) {
        let spec = self.spec;
        let whole = path!["steering", policy, "rules", index];
        let at = |key: &str, item: usize| path!["steering", policy, "rules", index, key, item];
        let conditions = rule.country.len()
            + rule.continent.len()
            + rule.subdivision.len()
            + rule.city.len()
            + rule.asn.len()
            + rule.network.len();
        if conditions == 0 {
            self.error(
                whole.clone(),
                "a rule needs a condition: country, continent, subdivision, city, asn or network",
            );
        }
        if rule.to.is_empty() {
            self.error(whole, "a rule needs a datacenter in `to`");
        }
        for (item, datacenter) in rule.to.iter().enumerate() {
            if rule.to[..item].contains(datacenter) {
                self.error(at("to", item), format!("`{datacenter}` is listed twice"));
            }
            self.refer(at("to", item), "datacenter", &spec.datacenter, datacenter);
            if spec.datacenter.contains_key(datacenter) && !pool.contains(datacenter) {
                self.error(
                    at("to", item),
                    format!("`{datacenter}` is not among the policy's `datacenters`"),
                );
            }
        }
        let upper = |text: &str, len: usize| {
            text.len() == len && text.chars().all(|c| c.is_ascii_uppercase())
        };
        for (item, country) in rule.country.iter().enumerate() {
            if !upper(country, 2) {
                self.error(
                    at("country", item),
                    format!("`{country}` is not an ISO 3166-1 code such as \"KR\""),
                );
            }
        }
        for (item, continent) in rule.continent.iter().enumerate() {
            if !["AF", "AN", "AS", "EU", "NA", "OC", "SA"].contains(&continent.as_str()) {
                self.error(
                    at("continent", item),
                    format!("`{continent}` is none of AF, AN, AS, EU, NA, OC, SA"),
                );
            }
        }
        for (item, subdivision) in rule.subdivision.iter().enumerate() {
            let good = subdivision.split_once('-').is_some_and(|(country, part)| {
                upper(country, 2)
                    && (1..=3).contains(&part.len())
                    && part.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
            });
            if !good {
                self.error(
                    at("subdivision", item),
                    format!("`{subdivision}` is not an ISO 3166-2 code such as \"US-CA\""),
                );
            }
        }
        for (item, network) in rule.network.iter().enumerate() {
            if let Err(error) = network.parse::<Prefix>() {
                self.error(at("network", item), error.to_string());
            }
        }
    }

    pub(super) fn probe(&mut self, name: &str, probe: &CheckSpec) {
        let at = |key: &str| path!["check", name, key];
        self.timing(
            &["check", name],
            probe.interval,
            probe.timeout,
            probe.down_after,
            probe.up_after,
        );
        if !probe.path.starts_with('/') || !is_field_content(&probe.path) {
            self.error(at("path"), "a path begins with `/` and has no spaces");
        }
        if probe.status.is_empty() {
            self.error(at("status"), "no status would be good");
        }
        if probe.host.as_deref().is_some_and(|host| !is_host(host)) {
            self.error(at("host"), "this is not a host name");
        }
        if probe.kind != CheckKind::Https {
            if probe.min_days > 0 {
                self.warn(at("min_days"), "only a check of kind \"https\" looks at certificates");
            }
            if probe.ca_file.is_some() {
                self.warn(at("ca_file"), "only a check of kind \"https\" looks at certificates");
            }
        }
        if probe.kind == CheckKind::Https && probe.min_days >= 90 {
            self.warn(
                at("min_days"),
                "certificates are often made for 90 days: one that is renewed in time would fail",
            );
        }
        if probe.port == Some(0) {
            self.error(at("port"), "port 0 cannot be asked");
        }
    }
}
