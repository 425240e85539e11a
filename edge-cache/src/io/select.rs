//! What stands in the place of a part of the request before anything is looked up: one language for Accept-Language where
//! the policy says which ones there are, the query of a stored response where that says that the two are the same to it.

use super::bring::{Keep, equivalent};
use super::serve::Context;
use crate::key::{CacheKey, normalise_query};
use crate::lookup::bypass;
use crate::semantics::language;

impl Context<'_> {
    /// The request with one language in place of Accept-Language, where the policy says which languages there are.
    pub(super) fn in_one_language(&self) -> Option<http::request::Parts> {
        let policy = self.route.value.policy.as_deref()?;
        if policy.vary.languages.is_empty() || bypass(&self.view(), Some(policy)).is_some() {
            return None;
        }
        let headers = language::replaced(&self.request.headers, &policy.vary.languages)?;
        let mut parts = self.request.clone();
        parts.headers = headers;
        Some(parts)
    }

    /// The query of a stored response in the place of the request's, where that response says that the two are the same to
    /// it (No-Vary-Search). Purges of what was asked for count as before.
    pub(super) async fn take_equivalent_query(&mut self) {
        let Some(policy) =
            self.route.value.policy.as_deref().filter(|policy| policy.no_vary_search)
        else {
            return;
        };
        if bypass(&self.view(), Some(policy)).is_some() {
            return;
        }
        let query = normalise_query(self.query.as_deref(), &policy.key);
        let fields = &self.request.headers;
        let key = CacheKey::new(
            self.scheme,
            &self.authority,
            &self.path,
            query.as_deref(),
            fields,
            &policy.key,
        );
        let (node, needed) = (self.node(), self.needed);
        if let Some(other) = equivalent(node, &key, fields, needed, Keep::Memory).await {
            self.needed = needed.max(node.store.fences().of_key(&key));
            self.query = other.query().map(Into::into);
        }
    }
}
