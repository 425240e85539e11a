//! Origins, cache policies, tiers and sites.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Check, is_domain_name, is_field_content, is_host};
use crate::config::document::Step;
use crate::config::spec::*;
use crate::config::values::*;

impl Check<'_> {
    pub(super) fn origin(&mut self, name: &str, origin: &OriginSpec) {
        let spec = self.spec;
        let at = |key: &str| path!["origin", name, key];
        if origin.servers.is_empty() {
            self.error(at("servers"), "an origin needs a server");
        }
        for (index, server) in origin.servers.iter().enumerate() {
            if origin.servers[..index].iter().any(|other| other.url == server.url) {
                self.error(
                    path!["origin", name, "servers", index],
                    format!("`{}` is listed twice", server.url),
                );
            }
        }
        if origin.host.as_deref().is_some_and(|host| !is_host(host)) {
            self.error(at("host"), "this is not a host name");
        }
        self.upstream_tls(name, origin);
        if let Some(sigv4) = &origin.sigv4 {
            self.sigv4(name, origin, sigv4);
        }
        if let Some(health) = &origin.health {
            self.timing(
                &["origin", name, "health"],
                health.interval,
                health.timeout,
                health.down_after,
                health.up_after,
            );
            if !health.path.starts_with('/') || !is_field_content(&health.path) {
                self.error(
                    path!["origin", name, "health", "path"],
                    "a path begins with `/` and has no spaces",
                );
            }
        }
        for (key, value) in [
            ("connect", origin.timeouts.connect),
            ("first_byte", origin.timeouts.first_byte),
            ("between_bytes", origin.timeouts.between_bytes),
        ] {
            self.no_zero(path!["origin", name, "timeouts", key], value, Duration::from_millis(1));
        }
        self.within(at("max_connections"), origin.max_connections, 1, 1_000_000);
        for (index, status) in origin.failover_on.iter().enumerate() {
            if !(400..=599).contains(status) {
                self.error(
                    path!["origin", name, "failover_on", index],
                    format!("{status} is not an error status (400 to 599)"),
                );
            }
        }
        if let Some(other) = &origin.failover {
            self.refer(at("failover"), "origin", &spec.origin, other);
            let mut seen = BTreeSet::from([name]);
            let mut next = Some(other.as_str());
            while let Some(origin) = next {
                if !seen.insert(origin) {
                    self.error(
                        at("failover"),
                        format!("the failover of `{name}` comes back to `{origin}`"),
                    );
                    break;
                }
                next = spec.origin.get(origin).and_then(|origin| origin.failover.as_deref());
            }
        }
    }

    fn upstream_tls(&mut self, name: &str, origin: &OriginSpec) {
        let at = |key: &str| path!["origin", name, key];
        if let Some(sni) = &origin.sni
            && !is_domain_name(sni)
        {
            self.error(at("sni"), format!("`{sni}` is not a name that a certificate can be for"));
        }
        if !origin.verify {
            self.warn(
                at("verify"),
                "whoever stands between this node and the origin can read and change everything: \
                 let `ca_file` name the authority that signed the certificate",
            );
            if origin.ca_file.is_some() {
                self.warn(at("ca_file"), "`ca_file` has no effect beside verify = false");
            }
        }
        if !origin.servers.is_empty() && origin.servers.iter().all(|server| !server.url.tls) {
            let given = [("sni", origin.sni.is_some()), ("verify", !origin.verify)];
            for (key, _) in given.iter().filter(|(_, given)| *given) {
                self.warn(at(key), format!("`{key}` has no effect: no server is asked over https"));
            }
        }
    }

    fn sigv4(&mut self, name: &str, origin: &OriginSpec, sigv4: &SigV4Spec) {
        for (key, value) in [("region", &sigv4.region), ("service", &sigv4.service)] {
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if value.is_empty() || !value.bytes().all(is_word) {
                self.error(
                    path!["origin", name, "sigv4", key],
                    format!("`{value}` is not a {key}: write it as in \"eu-west-1\", \"s3\""),
                );
            }
        }
        if origin.host.is_none() {
            self.warn(
                path!["origin", name, "sigv4"],
                "without `host` the bucket is asked under the name that the client used, which it \
                 hardly knows: write the bucket's own host",
            );
        }
    }

    pub(super) fn cache(&mut self, name: &str, policy: &CacheSpec) {
        let at = |key: &str| path!["cache", name, key];
        if name == "off" {
            self.error_at_key(path!["cache", name], "`off` means no cache in a route");
        }
        if policy.ttl.min > policy.ttl.max {
            self.error(at("ttl"), "`min` must not be more than `max`");
        } else if !(policy.ttl.min..=policy.ttl.max).contains(&policy.ttl.default) {
            self.error(at("ttl"), "`default` must be between `min` and `max`");
        }
        for status in policy.negative_ttl.keys() {
            if !status.parse::<u16>().is_ok_and(|status| (300..=599).contains(&status)) {
                self.error_at_key(
                    path!["cache", name, "negative_ttl", status],
                    format!("`{status}` is not a status from 300 to 599"),
                );
            }
        }
        for (index, coding) in policy.compress.iter().enumerate() {
            let path = path!["cache", name, "compress", index];
            if !["zstd", "br", "gzip"].contains(&coding.as_str()) {
                self.error(path, format!("`{coding}` is no encoding: there are zstd, br, gzip"));
            } else if policy.compress[..index].contains(coding) {
                self.error(path, format!("`{coding}` is listed twice"));
            }
        }
        let of_coding = |header: &String| header.eq_ignore_ascii_case("accept-encoding");
        if !policy.compress.is_empty() && policy.key.headers.iter().any(of_coding) {
            self.warn(
                path!["cache", name, "key", "headers"],
                "Accept-Encoding in the key has each object stored many times over: `compress` \
                 needs it once",
            );
        }
        let key = |key: &str| path!["cache", name, "key", key];
        if policy.key.query == KeyQuery::None && !policy.key.drop.is_empty() {
            self.error(key("drop"), "`drop` goes with query = \"all\"");
        }
        if policy.key.query == KeyQuery::All && !policy.key.keep.is_empty() {
            self.error(key("keep"), "`keep` goes with query = \"none\"");
        }
        for (index, header) in policy.key.headers.iter().enumerate() {
            if http::HeaderName::try_from(header.as_str()).is_err() {
                self.error(
                    path!["cache", name, "key", "headers", index],
                    format!("`{header}` is not a field name"),
                );
            }
        }
    }

    pub(super) fn tier(&mut self, name: &str, tier: &TierSpec) {
        let spec = self.spec;
        let is_parent = |edge: &EdgeSpec| edge.role != Role::Edge && !edge.http.is_empty();
        match &tier.parents {
            Parents::NearestDatacenter if !spec.edge.values().any(is_parent) => self.error(
                path!["tier", name, "parents"],
                "no edge has the role `parent` or `both` and an `http` listener",
            ),
            Parents::NearestDatacenter => {}
            Parents::Named(names) if names.is_empty() => {
                self.error(path!["tier", name, "parents"], "a tier needs a parent");
            }
            Parents::Named(names) => {
                for (index, parent) in names.iter().enumerate() {
                    let path = path!["tier", name, "parents", index];
                    self.refer(path.clone(), "edge", &spec.edge, parent);
                    if names[..index].contains(parent) {
                        self.error(path.clone(), format!("`{parent}` is listed twice"));
                    }
                    match spec.edge.get(parent) {
                        Some(edge) if edge.role == Role::Edge => self.error(
                            path,
                            format!(
                                "`{parent}` has the role `edge`: a parent needs `parent` or `both`"
                            ),
                        ),
                        Some(edge) if edge.http.is_empty() => self.error(
                            path,
                            format!("`{parent}` has no `http` listener that edges could ask"),
                        ),
                        _ => {}
                    }
                }
            }
        }
        self.within(path!["tier", name, "bounded_load"], tier.bounded_load, 1.0, 1000.0);
    }

    pub(super) fn sites(&mut self) {
        let spec = self.spec;
        let mut hosts: BTreeMap<String, &String> = BTreeMap::new();
        for (name, site) in &spec.site {
            if site.hosts.is_empty() {
                self.error(path!["site", name, "hosts"], "a site needs a host");
            }
            for (index, host) in site.hosts.iter().enumerate() {
                let path = path!["site", name, "hosts", index];
                if !is_host(host.strip_prefix("*.").unwrap_or(host)) {
                    self.error(
                        path,
                        format!(
                            "`{host}` is not a host: write \"www.example.com\" or \"*.example.com\""
                        ),
                    );
                } else if let Some(other) = hosts.insert(host.to_ascii_lowercase(), name) {
                    self.error(path, format!("`{host}` is a host of site `{other}` already"));
                }
            }
            if let Some(tier) = &site.tier {
                self.refer(path!["site", name, "tier"], "tier", &spec.tier, tier);
            }
            if site.routes.is_empty() {
                self.error(
                    path!["site", name, "routes"],
                    "a site needs a route, such as { path = \"/*\", origin = \"…\" }",
                );
            }
            for (index, route) in site.routes.iter().enumerate() {
                self.route(name, index, route, &site.routes[..index]);
            }
        }
    }

    /// `upgrade` of a route: names of protocols (RFC 9110 §7.8), and none that would bring requests past the checks.
    fn upgrade(&mut self, site: &str, index: usize, route: &RouteSpec) {
        for (at, protocol) in route.upgrade.iter().enumerate() {
            let path = path!["site", site, "routes", index, "upgrade", at];
            let is_token = |text: &str| {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                !text.is_empty() && text.bytes().all(plain)
            };
            let (name, version) = match protocol.split_once('/') {
                Some((name, version)) => (name, Some(version)),
                None => (protocol.as_str(), None),
            };
            let same = |other: &String| other.eq_ignore_ascii_case(protocol);
            if !is_token(name) || !version.is_none_or(is_token) {
                self.error(path, format!("`{protocol}` is not a protocol: write \"websocket\""));
            } else if ["h2c", "http", "tls", "connect-udp"]
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other))
            {
                self.error(
                    path,
                    format!("with `{protocol}`, requests would reach the origin that nobody here has seen"),
                );
            } else if route.upgrade.iter().take(at).any(same) {
                self.error(path, format!("`{protocol}` is listed twice"));
            } else if route.origin.is_none() {
                self.error(path, "there is no `origin` that could switch protocols");
            }
        }
    }

    fn route(&mut self, site: &str, index: usize, route: &RouteSpec, before: &[RouteSpec]) {
        let spec = self.spec;
        let at = |key: &str| path!["site", site, "routes", index, key];
        match &route.origin {
            Some(origin) => self.refer(at("origin"), "origin", &spec.origin, origin),
            None if route.redirect.is_some() => {}
            None => self.error(
                path!["site", site, "routes", index],
                "a route needs an `origin`, or a `redirect`",
            ),
        }
        match &route.cache {
            RouteCache::Off => {}
            RouteCache::Policy(policy) if policy == "default" => {}
            RouteCache::Policy(policy) => self.refer(at("cache"), "cache", &spec.cache, policy),
        }
        let path = &route.path;
        let fixed = path.strip_suffix('*').unwrap_or(path);
        if !fixed.starts_with('/') || fixed.contains(['*', '?', '#']) || !is_field_content(path) {
            self.error(
                at("path"),
                format!("`{path}` is not a path: write \"/exact\" or \"/prefix/*\" (`*` only at the end)"),
            );
        }
        self.upgrade(site, index, route);
        let shadow = before.iter().find(|other| match other.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => other.path == *path,
        });
        if let Some(shadow) = shadow {
            self.warn(
                at("path"),
                format!("no request comes here: `{}` above matches all of `{path}`", shadow.path),
            );
        }
        if let Some(prefix) = &route.strip_prefix
            && !(prefix.starts_with('/') && fixed.starts_with(prefix.as_str()))
        {
            self.error(
                at("strip_prefix"),
                format!("`{prefix}` is not the beginning of the path `{path}`"),
            );
        }
        self.route_rules(site, index, route);
    }
}
