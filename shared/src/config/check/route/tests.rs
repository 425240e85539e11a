//! What operators are told of their routes' rules.

use std::path::{Path, PathBuf};

use crate::config::{Files, load};

struct One(String);

impl Files for One {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }
    fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

/// What is said of a configuration whose one route has these keys, and of nothing else.
fn said(route: &str, more: &str) -> Vec<String> {
    let text = format!(
        "[origin.static]\nservers = [{{ url = \"http://127.0.9.1:9001\" }}]\n\
         [datacenter.icn]\nlocation = [37.46, 126.44]\n\
         [edge.e1]\ndatacenter = \"icn\"\naddress = [\"192.0.2.1\"]\nhttp = [\"192.0.2.1:80\"]\nadmin = \"127.0.0.1:9090\"\n\
         [site.www]\nhosts = [\"www.cdn.test\"]\nroutes = [{{ path = \"/a/*\", {route} }}]\n{more}"
    );
    let problems = match load(Path::new("m.toml"), &One(text)) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    problems
        .iter()
        .map(|problem| {
            assert!(problem.place.is_some(), "{problem}");
            let severity = if problem.is_error() { "error" } else { "warning" };
            format!("{severity}: {}", problem.message)
        })
        .collect()
}

#[track_caller]
fn says(route: &str, expected: &[&str]) {
    let all = said(&format!("origin = \"static\", {route}"), "");
    assert_eq!(all.len(), expected.len(), "{route}: {all:#?}");
    for (got, wanted) in all.iter().zip(expected) {
        assert!(got.contains(wanted), "{route}: {got:?} and not {wanted:?}");
    }
}

#[test]
fn good_rules_are_taken_without_a_word() {
    let route = "redirect = { to = \"https://{host}{path}{query}\", status = 301 }, methods = [\"GET\"], signed = \"m\", \
        request_headers = { set = { X-Edge = \"1\" }, remove = [\"Cookie\", \"Accept-Encoding\"] }, \
        response_headers = { set = { Strict-Transport-Security = \"max-age=1\" }, remove = [\"Server\", \"ETag\"] }, \
        cors = { origins = [\"https://*.example.com\"], headers = [\"*\"], expose = [\"X-A\"], credentials = true }, \
        access = { allow = [\"10.0.0.0/8\"], deny = [\"10.1.0.0/16\"], deny_countries = [\"KR\"] }";
    let more = "[signing.m]\nkeys = { k1 = \"k1\" }\n[geo]\ndatabases = [\"a.mmdb\"]";
    assert_eq!(said(&format!("origin = \"static\", {route}"), more), [""; 0]);
    assert_eq!(
        said("redirect = { to = \"/b/{rest}\" }", ""),
        [""; 0],
        "a redirect needs no origin"
    );
}

#[test]
fn methods_redirects_and_rewrites() {
    says("methods = []", &["nothing would be served"]);
    says("methods = [\"get\"]", &["write \"GET\""]);
    says("methods = [\"GET\", \"GET\"]", &["twice"]);
    says("methods = [\"TRACE\"]", &["not served on any route"]);
    says("methods = [\"A B\"]", &["not a method"]);
    says("upgrade = [\"websocket\"], methods = [\"GET\"]", &[]);
    says("upgrade = [\"websocket\"], methods = [\"POST\"]", &["warning: a connection is switched"]);
    says("redirect = { to = \"/b\", status = 304 }", &["304 is no redirect"]);
    says("redirect = { to = \"https://b.test{rest}\" }", &["write a `/` between"]);
    says("redirect = { to = \"/{uri}\" }", &["placeholder `{uri}`"]);
    says("redirect = { to = \"/b\" }", &["warning: this origin is asked only"]);
    says("rewrite = \"b\"", &["begin it with"]);
    says("rewrite = \"/{host}\"", &["only `{path}` and `{rest}`"]);
    says("rewrite = \"/b\", strip_prefix = \"/a\"", &["do not go together"]);
    let exact = said(
        "origin = \"static\" }, { path = \"/x\", origin = \"static\", rewrite = \"/{rest}\"",
        "",
    );
    assert!(exact.len() == 1 && exact[0].contains("`path` has none"), "{exact:?}");
}

#[test]
fn fields_that_nodes_write_themselves() {
    for name in [
        "Host",
        "Connection",
        "Transfer-Encoding",
        "Content-Length",
        "Via",
        "CDN-Loop",
        "Range",
        "X-Forwarded-For",
        "Upgrade",
        "If-None-Match",
    ] {
        for rule in [format!("set = {{ {name} = \"x\" }}"), format!("remove = [\"{name}\"]")] {
            says(&format!("request_headers = {{ {rule} }}"), &[&format!("`{name}`")]);
        }
    }
    for name in
        ["Connection", "Content-Length", "Via", "Age", "Date", "Cache-Status", "Content-Encoding"]
    {
        says(&format!("response_headers = {{ remove = [\"{name}\"] }}"), &[&format!("`{name}`")]);
    }
    says("request_headers = { set = { Accept-Encoding = \"gzip\" } }", &["what the client takes"]);
    says("response_headers = { set = { ETag = \"x\" } }", &["must be the origin's"]);
    says("response_headers = { set = { X-A = \"b\\r\\nc\" } }", &["printable ASCII"]);
    says("response_headers = { set = { X-A = \" b\" } }", &["printable ASCII"]);
    says("response_headers = { set = { X-A = \"b\" }, remove = [\"x-a\"] }", &["twice"]);
    says("response_headers = { remove = [\"a b\"] }", &["not a field name"]);
    says("response_headers = { remove = [\"Vary\"] }", &["warning: caches of clients"]);
    says(
        "cors = { origins = [\"*\"] }, response_headers = { remove = [\"Access-Control-Max-Age\"] }",
        &["what `cors` writes"],
    );
}

#[test]
fn cors_access_and_signatures() {
    says("cors = { origins = [] }", &["no origin is allowed"]);
    says("cors = { origins = [\"example.com\"] }", &["not an origin"]);
    says("cors = { origins = [\"*\", \"https://a.test\"] }", &["write it alone"]);
    says("cors = { origins = [\"*\"], credentials = true }", &["every site could act"]);
    says("cors = { origins = [\"null\"], credentials = true }", &["not with credentials"]);
    says("cors = { origins = [\"null\"] }", &["warning: every site"]);
    says("cors = { origins = [\"http://a.test\"], credentials = true }", &["warning: whoever"]);
    says("cors = { origins = [\"*\"], methods = [\"put\"] }", &["write \"PUT\""]);
    says("cors = { origins = [\"*\"], headers = [\"a b\"] }", &["not a field name"]);
    let put = "cors = { origins = [\"*\"], methods = [\"HEAD\", \"PUT\"] }";
    says(put, &[]);
    says(&format!("{put}, methods = [\"GET\"]"), &["warning: preflights allow PUT"]);
    says("cors = { origins = [\"*\"], methods = [\"REPORT\"] }", &["allow REPORT"]);
    says(
        "cors = { origins = [\"https://a.test\"], expose = [\"*\"], credentials = true }",
        &["name the fields"],
    );
    says("cors = { origins = [\"*\"], max_age = \"2d\" }", &["warning: browsers"]);
    says("access = { allow = [\"10.0.0.1/8\"] }", &["host bits"]);
    says("access = { deny_countries = [\"KR\"] }", &["databases only"]);
    says("access = { allow = [\"::/0\"], deny = [\"::/0\"] }", &["warning: `::/0` is denied"]);
    let geo = "[geo]\ndatabases = [\"a.mmdb\"]";
    for (code, wanted) in [("XX", "no country has"), ("kr", "\"KR\""), ("KOR", "not a country")] {
        let all = said(
            &format!("origin = \"static\", access = {{ deny_countries = [\"{code}\"] }}"),
            geo,
        );
        assert!(all.len() == 1 && all[0].contains(wanted), "{all:?}");
    }
    says("signed = \"m\", methods = [\"GET\"]", &["there is no signing `m`"]);
    let open = said("origin = \"static\", signed = \"m\"", "[signing.m]\nkeys = { k1 = \"k1\" }");
    assert!(
        open.len() == 1 && open[0].contains("warning: a signature is good for every method"),
        "{open:?}"
    );
    for (signing, wanted) in
        [("keys = {}", "write a key"), ("keys = { \"a b\" = \"k\" }", "cannot be a key's name")]
    {
        let all = said("origin = \"static\"", &format!("[signing.m]\n{signing}"));
        assert!(all.len() == 1 && all[0].contains(wanted), "{all:?}");
    }
}
