//! What the origin's answer to a HEAD that was passed on makes of the stored response to GET (RFC 9111 §4.3.5): it goes on
//! with new fields and a new lifetime, or is known to be out of date.
//!
//! Only the rfc profile passes such requests on beside a store. In the safe one, a HEAD is answered by what a GET fetches.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::bring::{Brought, Keep, bring};
use super::fetch::Fetched;
use super::serve::Context;
use crate::key::CacheKey;
use crate::semantics::conditional::{Updated, apply_head};
use crate::semantics::headers::strip_hop_by_hop;
use crate::semantics::{Policy, Profile};
use crate::store::Found;

impl Context<'_> {
    /// Freshens or removes what is stored for the request, if this is the answer to a HEAD.
    pub(super) async fn update_by_head(
        &self,
        policy: &Arc<Policy>,
        key: &CacheKey,
        origin: &str,
        fetched: &Fetched,
    ) {
        let (response, client) = (&fetched.response, &self.request.headers);
        if self.request.method != Method::HEAD
            || response.status() != StatusCode::OK
            || policy.profile != Profile::Rfc
        {
            return;
        }
        let node = self.node();
        let mut brought = Brought::default();
        bring(node, key, client, Keep::Memory, &mut brought).await;
        let found = node.store.lookup_with(key, client, self.needed, brought.objects());
        let Found::Object(object) = found else { return };
        // What has come since the HEAD was sent is newer than its answer.
        let took = fetched.response_time.since(fetched.request_time);
        if object.response_time() > fetched.arrived - took {
            return;
        }
        let mut fields = response.headers().clone();
        strip_hop_by_hop(&mut fields);
        let (sent, came) = (fetched.request_time, fetched.response_time);
        match apply_head(&object.head(), &self.path, client, &fields, sent, came, policy) {
            Updated::Head(head) => {
                let head = head
                    .arrived(fetched.arrived)
                    .jittered(policy.ttl.jitter, key.hash(), &node.name)
                    .fenced(fetched.fence, policy, origin);
                match head.vary.variant(client) {
                    Some(variant) => {
                        let new = Arc::new(object.updated(variant, &head));
                        node.store.put(new, policy.vary.max);
                    }
                    None => node.store.remove(&object),
                }
            }
            Updated::UseOnce(..) | Updated::Changed => node.store.remove(&object),
        }
    }
}
