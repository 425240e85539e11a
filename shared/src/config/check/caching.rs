//! The keys of a cache policy that say which responses are fresh, and which of them a request selects.

use std::time::Duration;

use super::Check;
use crate::config::document::Step;
use crate::config::spec::*;

/// A `ttl.min` beyond this is more than a guard against origins that say `max-age=0` by accident.
const RAISED: Duration = Duration::from_secs(60);
/// More variants than this of one URL are rather a field that should not be in Vary.
const MANY_VARIANTS: u32 = 256;

impl Check<'_> {
    pub(super) fn caching(&mut self, name: &str, policy: &CacheSpec) {
        let at = |key: &str| path!["cache", name, key];
        self.within(path!["cache", name, "ttl", "jitter"], policy.ttl.jitter, 0.0, 0.5);
        if policy.ttl.min.get() > RAISED {
            self.warn(
                path!["cache", name, "ttl", "min"],
                "responses that say max-age=0 are served this long, too: origins that mean it should say no-cache",
            );
        }
        if policy.profile == Profile::Rfc && !policy.stale.while_revalidate.get().is_zero() {
            self.warn(
                path!["cache", name, "stale", "while_revalidate"],
                "has no effect with profile = \"rfc\": there, only the origin can allow it (RFC 9111 §4.2.4)",
            );
        }
        for (index, field) in policy.targeted.iter().enumerate() {
            let path = path!["cache", name, "targeted", index];
            let is = |other: &str| field.eq_ignore_ascii_case(other);
            if http::HeaderName::try_from(field.as_str()).is_err() {
                self.error(path, format!("`{field}` is not a field name"));
            } else if is("Cache-Control") || is("Expires") {
                self.error(path, format!("`{field}` is no targeted field: it counts anyway"));
            } else if is("Surrogate-Control") {
                self.error(
                    path,
                    "Surrogate-Control has a syntax of its own: write surrogate_control = true",
                );
            } else if policy.targeted[..index].iter().any(|other| is(other)) {
                self.error(path, format!("`{field}` is listed twice"));
            }
        }
        self.within(path!["cache", name, "vary", "max"], policy.vary.max, 1, 4096);
        if policy.vary.max > MANY_VARIANTS {
            self.warn(
                path!["cache", name, "vary", "max"],
                "so many variants of one URL can fill the store: is a field in Vary that each client has another of?",
            );
        }
        for (index, language) in policy.vary.languages.iter().enumerate() {
            let path = path!["cache", name, "vary", "languages", index];
            let before = &policy.vary.languages[..index];
            if !is_language(language) {
                self.error(
                    path,
                    format!("`{language}` is not a language: write \"en\" or \"pt-BR\" (RFC 5646)"),
                );
            } else if before.iter().any(|other| other.eq_ignore_ascii_case(language)) {
                self.error(path, format!("`{language}` is listed twice"));
            }
        }
        let shared_by_few = ["cookie", "user-agent", "authorization", "referer"];
        for (index, header) in policy.key.headers.iter().enumerate() {
            if shared_by_few.iter().any(|few| header.eq_ignore_ascii_case(few)) {
                self.warn(
                    path!["cache", name, "key", "headers", index],
                    format!(
                        "almost every client has another `{header}`: hardly anything is shared"
                    ),
                );
            }
        }
        for (index, field) in policy.tags.iter().enumerate() {
            let path = path!["cache", name, "tags", index];
            if http::HeaderName::try_from(field.as_str()).is_err() {
                self.error(path, format!("`{field}` is not a field name"));
            } else if policy.tags[..index].iter().any(|other| other.eq_ignore_ascii_case(field)) {
                self.error(path, format!("`{field}` is listed twice"));
            }
        }
        if policy.no_vary_search && policy.key.query == KeyQuery::None {
            self.warn(
                at("no_vary_search"),
                "has little to do with key.query = \"none\": the query is not in the key anyway",
            );
        }
    }
}

/// Letters, then letters and digits, in parts of up to eight (RFC 4647 §2.1).
fn is_language(text: &str) -> bool {
    text.split('-').enumerate().all(|(at, part)| {
        let fits = |c: char| c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
        (1..=8).contains(&part.len()) && part.chars().all(fits)
    })
}
