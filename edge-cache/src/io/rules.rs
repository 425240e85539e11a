//! The rules of a route in service: taken before the cache has its turn, and put on every response; the files that they need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use shared::config::{Role, Spec, Step};
use shared::geo::Database;
use shared::io::{clock, files};

use super::body::ResponseBody;
use super::request_body::RequestBody;
use super::respond::{self, Marks};
use super::serve::Context;
use super::telemetry::Exchange;
use crate::config::Plan;
use crate::rules::access::Countries;
use crate::rules::signed::{Keys, check_secret};
use crate::rules::{Answer, Asked, RouteRules};

/// A database at most: the largest sold have a quarter of this.
const MAX_DATABASE: u64 = 4 << 30;

impl Context<'_> {
    /// Answers a request by its route's rules: at once, or from the cache and beyond.
    pub(super) async fn by_rules(
        mut self,
        exchange: Box<Exchange>,
        body: RequestBody,
        client: Option<OnUpgrade>,
    ) -> Response<ResponseBody> {
        let role = self.snapshot.plan.edge.role;
        if self.is_inner && role != Role::Edge {
            // The node before us has done it, for the true client.
            self.take_equivalent_query().await;
            return self.respond(exchange, body, client).await;
        }
        let rules = Arc::clone(&self.route.value.rules);
        let request = self.request;
        let (authority, path, query) =
            (self.authority.clone(), self.path.clone(), self.query.clone());
        let asked = Asked {
            method: &request.method,
            headers: &request.headers,
            scheme: self.scheme,
            authority: &authority,
            path: &path,
            rest: self.route.pattern.rest(&path),
            query: query.as_deref(),
            client: Some(self.client),
        };
        let (verdict, afterwards) = rules.before(&asked, clock::now().secs());
        let verdict = verdict.and_then(|onward| match self.route.target_path(&path) {
            Ok(_) => Ok(onward),
            Err(reason) => Err(Answer::new(StatusCode::BAD_REQUEST, reason)),
        });
        let mut response = match verdict {
            Err(answer) => self.answer_here(exchange, answer),
            Ok(onward) => {
                let changed;
                let mut context: Context<'_> = self;
                if let Some(query) = onward.query {
                    context.query = query.map(Into::into);
                }
                if let Some(headers) = onward.headers {
                    let mut parts = request.clone();
                    parts.headers = headers;
                    changed = parts;
                    context.request = &changed;
                }
                context.take_equivalent_query().await;
                context.respond(exchange, body, client).await
            }
        };
        rules.after(&afterwards, response.headers_mut());
        response
    }

    fn answer_here(&self, mut exchange: Box<Exchange>, answer: Answer) -> Response<ResponseBody> {
        let Answer { status, reason, headers } = answer;
        exchange.reason = reason;
        let mut response = match status {
            StatusCode::NO_CONTENT => {
                respond::response(status, headers.clone(), ResponseBody::empty())
            }
            status => respond::text(status, reason.code()),
        };
        if status != StatusCode::NO_CONTENT {
            for (name, value) in &headers {
                response.headers_mut().insert(name, value.clone());
            }
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if self.request.method == Method::HEAD {
            response = response.map(ResponseBody::without_content);
        }
        respond::finish(exchange, &self.node().name, response, &Marks::default())
    }
}

/// What the rules of routes need and files hold.
pub(super) struct Material {
    keys: BTreeMap<String, Arc<Keys>>,
    countries: Option<Arc<Countries>>,
}

impl Material {
    /// Reads what a plan needs.
    ///
    /// # Errors
    /// The file that cannot be used, and why.
    pub(super) fn load(plan: &Plan) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for (name, listed) in &plan.signing {
            keys.insert(name.clone(), Arc::new(read_keys(listed)?));
        }
        let countries = if plan.databases.is_empty() {
            None
        } else {
            let read = plan.databases.iter().map(|path| read_database(path));
            Some(Arc::new(Countries::new(&read.collect::<Result<Vec<_>, _>>()?)))
        };
        Ok(Self { keys, countries })
    }

    /// The rules with what they need.
    pub(super) fn complete(&self, rules: &RouteRules) -> RouteRules {
        RouteRules {
            keys: rules.signed.as_ref().and_then(|name| self.keys.get(name)).cloned(),
            countries: self.countries.clone().filter(|_| rules.needs_countries()),
            ..rules.clone()
        }
    }
}

/// The keys of a `[signing.NAME]`.
///
/// # Errors
/// The file that cannot be used, and why.
pub(crate) fn read_keys(listed: &BTreeMap<String, PathBuf>) -> Result<Keys, String> {
    let mut secrets = Vec::new();
    for (name, file) in listed {
        secrets.push((name.clone(), files::read_secret(file)?));
    }
    Keys::new(secrets)
}

fn read_database(path: &Path) -> Result<Database, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = files::read_file(path, MAX_DATABASE)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Database::from_bytes(bytes, &name).map_err(|error| error.to_string())
}

/// What is wrong with the files that rules of routes need, and where they are named.
pub(super) fn unusable(spec: &Spec) -> Vec<(Vec<Step>, String)> {
    let mut wrong = Vec::new();
    for (name, signing) in &spec.signing {
        for (key, file) in &signing.keys {
            let checked = files::read_secret(file).and_then(|secret| {
                check_secret(&secret).map_err(|why| format!("{}: {why}", file.display()))
            });
            if let Err(why) = checked {
                let at = ["signing", name.as_str(), "keys", key.as_str()];
                wrong.push((at.map(Step::from).to_vec(), why));
            }
        }
    }
    let routes = || spec.site.values().flat_map(|site| &site.routes);
    let asks = |access: &shared::config::AccessSpec| {
        !(access.allow_countries.is_empty() && access.deny_countries.is_empty())
    };
    if routes().any(|route| asks(&route.access)) {
        for (index, path) in spec.geo.databases.iter().enumerate() {
            if let Err(why) = read_database(path) {
                wrong.push((vec!["geo".into(), "databases".into(), index.into()], why));
            }
        }
    }
    wrong
}
