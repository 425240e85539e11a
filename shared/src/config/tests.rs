//! What operators are told of their configuration.

use super::*;

struct Memory(BTreeMap<PathBuf, String>);

impl Memory {
    fn new<const N: usize>(files: [(&str, &str); N]) -> Self {
        Self(files.map(|(path, text)| (PathBuf::from(path), text.to_owned())).into())
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(text) => Ok(text.clone().into_bytes()),
            None => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        }
    }
    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let pattern = glob::Pattern::new(pattern).map_err(|error| error.to_string())?;
        Ok(self.0.keys().filter(|path| pattern.matches_path(path)).cloned().collect())
    }
    fn env(&self, name: &str) -> Option<String> {
        (name == "SHIELD").then(|| "icn-p1".to_owned())
    }
}

fn load_text(text: &str) -> Result<Loaded, Vec<Problem>> {
    load(Path::new("etc/m.toml"), &Memory::new([("etc/m.toml", text)]))
}

fn messages(text: &str) -> Vec<String> {
    match load_text(text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    }
    .iter()
    .map(|problem| {
        let (line, column) = problem.place.as_ref().map_or((0, 0), |at| (at.line, at.column));
        format!("{line}:{column} {}", problem.message)
    })
    .collect()
}

/// A whole small CDN without problems.
const GOOD: &str = r#"
[datacenter.icn]
location = [37.46, 126.44]
[datacenter.fra]
location = [50.03, 8.57]
[nameserver.ns1]
listen = ["127.0.0.53:5353"]
admin = "127.0.0.53:8053"
[edge.icn-1]
datacenter = "icn"
address = ["127.0.1.1"]
http = ["127.0.1.1:8080"]
admin = "127.0.1.1:9090"
[edge.fra-1]
datacenter = "fra"
address = ["127.0.2.1"]
http = ["127.0.2.1:8080"]
admin = "127.0.2.1:9090"
[edge.icn-p1]
datacenter = "icn"
role = "parent"
http = ["127.0.1.10:8080"]
admin = "127.0.1.10:9090"
[check.edge]
kind = "http"
[zone."cdn.test"]
file = "zones/cdn.test.zone"
steer = { www = "web" }
[steering.web]
check = "edge"
[origin.static]
servers = [{ url = "http://127.0.9.1:9001" }]
[cache.assets]
[tier.shield]
parents = ["icn-p1"]
[site.www]
hosts = ["www.cdn.test"]
tier = "shield"
routes = [{ path = "/*", origin = "static", cache = "assets" }]
"#;

#[test]
fn a_good_configuration_has_no_problem() {
    assert_eq!(messages(GOOD), [""; 0]);
    let spec = load_text(GOOD).unwrap().spec;
    assert_eq!(spec.zone["cdn.test"].file, Path::new("etc/zones/cdn.test.zone"));
    assert_eq!(spec.cache["assets"], CacheSpec::default());
    assert_eq!(spec.check["edge"].detection(), std::time::Duration::from_secs(6));
}

/// Three defaults of a cache policy are those of its profile.
#[test]
fn a_profile_has_its_defaults() {
    let policy = |keys: &str| {
        let text = GOOD.replace("[cache.assets]", &format!("[cache.assets]\n{keys}"));
        let policy = load_text(&text).unwrap().spec.cache.remove("assets").unwrap();
        (policy.ttl.default.get().as_secs(), policy.heuristic, policy.surrogate_control)
    };
    assert_eq!(policy(""), (600, false, false));
    assert_eq!(policy("profile = \"rfc\""), (0, true, true));
    assert_eq!(policy("profile = \"rfc\"\nttl = { min = \"5s\" }"), (5, true, true));
    let written = "profile = \"rfc\"\nheuristic = false\nsurrogate_control = false";
    assert_eq!(policy(&format!("{written}\nttl = {{ default = \"1m\" }}")), (60, false, false));
    assert_eq!(policy("heuristic = true\nsurrogate_control = true"), (600, true, true));
}

#[test]
fn an_unknown_key_has_its_place_and_the_nearest_key() {
    let text = GOOD.replace("[cache.assets]", "[cache.assets]\nttl = { defalt = \"1m\" }");
    let problems = load_text(&text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let shown = problems[0].to_string();
    assert!(
        shown.contains("etc/m.toml:34:9: error: unknown key `defalt`; did you mean `default`?"),
        "{shown}"
    );
    assert!(shown.contains("34 | ttl = { defalt = \"1m\" }\n   |         ^^^^^^\n"), "{shown}");
    assert!(shown.contains("= known keys: default, jitter, max, min"), "{shown}");
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = r#"
[datacenter.icn]
location = [137.46, 126.44]
colour = "red"
[edge.icn-1]
datacenter = "icm"
memory = "lots"
http = ["127.0.1.1:8080"]
[site.www]
hosts = ["www.cdn.test"]
routes = [{ path = "/*", origin = "static", cashe = "off" }, { path = "images", origin = "static" }]
[bogus]
"#;
    let found = messages(text);
    for (expected, at) in [
        ("latitude 137.46", "3:12"),
        ("unknown key `colour`", "4:1"),
        ("`lots` is not a size", "7:10"),
        ("the key `admin` is missing", "5:"),
        ("unknown key `cashe`; did you mean `cache`?", "11:45"),
        ("unknown key `bogus`", "12:2"),
    ] {
        assert!(
            found.iter().any(|message| message.contains(expected) && message.starts_with(at)),
            "{expected} at {at} is not in {found:#?}"
        );
    }
}

#[test]
fn names_must_exist() {
    for (from, to, expected) in [
        (
            "datacenter = \"fra\"",
            "datacenter = \"fre\"",
            "there is no datacenter `fre`; did you mean `fra`?",
        ),
        ("check = \"edge\"", "check = \"egde\"", "there is no check `egde`; did you mean `edge`?"),
        ("www = \"web\"", "www = \"wob\"", "there is no steering `wob`"),
        ("origin = \"static\"", "origin = \"statik\"", "there is no origin `statik`"),
        ("cache = \"assets\"", "cache = \"asets\"", "there is no cache `asets`"),
        ("tier = \"shield\"", "tier = \"sheild\"", "there is no tier `sheild`"),
        ("parents = [\"icn-p1\"]", "parents = [\"icn-p2\"]", "there is no edge `icn-p2`"),
        ("parents = [\"icn-p1\"]", "parents = [\"icn-1\"]", "a parent needs `parent` or `both`"),
    ] {
        let found = messages(&GOOD.replacen(from, to, 1));
        assert!(found.iter().any(|message| message.contains(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn values_must_be_in_bounds() {
    for (from, to, expected) in [
        ("[steering.web]", "[steering.web]\nmin_up = 1.5", "min_up must be between 0 and 1"),
        (
            "[steering.web]",
            "[steering.web]\nttl = { min = \"2m\" }",
            "`min` must not be more than `max`",
        ),
        (
            "[steering.web]",
            "[steering.web]\necs = { max_v4 = 33 }",
            "max_v4 must be between 0 and 32",
        ),
        (
            "[steering.web]",
            "[steering.web]\nrules = [{ to = [\"icn\"] }]",
            "a rule needs a condition",
        ),
        (
            "[steering.web]",
            "[steering.web]\nrules = [{ country = [\"kr\"], to = [\"icn\"] }]",
            "`kr` is not an ISO 3166-1 code",
        ),
        (
            "[steering.web]",
            "[steering.web]\nall_down = \"fallback:ams\"",
            "there is no datacenter `ams`",
        ),
        (
            "[steering.web]",
            "[steering.web]\nmax_share = { icn = 1.5 }",
            "icn must be between 0 and 1",
        ),
        (
            "[steering.web]",
            "[steering.web]\norder = \"weighted\"\nmax_share = { icn = 0.5 }",
            "shares follow the datacenters' `weight`",
        ),
        ("[datacenter.fra]", "[datacenter.fra]\nbias = 100", "bias must be between -99 and 99"),
        ("[datacenter.fra]", "[datacenter.fra]\nbias = 1000", "a whole number from -128 to 127"),
        ("[datacenter.fra]", "[datacenter.fra]\ncapacity = \"0bps\"", "it can send nothing"),
        (
            "[steering.web]",
            "[steering.web]\nrules = [{ country = [\"KR\"], to = [\"icn\", \"icn\"] }]",
            "`icn` is listed twice",
        ),
        (
            "kind = \"http\"",
            "kind = \"http\"\ntimeout = \"9s\"",
            "`timeout` must not be longer than `interval`",
        ),
        ("127.0.2.1:9090", "127.0.1.1:9090", "127.0.1.1:9090 is edge.fra-1.admin already"),
        (
            "[nameserver.ns1]",
            "[nameserver.ns1]\ndoq = [\"127.0.0.53:5353\"]",
            "127.0.0.53:5353 is nameserver.ns1.listen already",
        ),
        (
            "[nameserver.ns1]",
            "[nameserver.ns1]\ndoh = [\"127.0.1.1:8080\"]",
            "127.0.1.1:8080 is nameserver.ns1.doh already",
        ),
        (
            "[steering.web]",
            "[steering.web]\nshed = { above = 0.8 }",
            "clients would never come back",
        ),
        ("[edge.icn-1]", "[edge.icn-1]\nprobe = \"0.0.0.0\"", "checks cannot ask 0.0.0.0"),
        ("127.0.1.1:9090", "192.0.2.1:9090", "needs `admin_token_file`"),
        ("path = \"/*\"", "path = \"*/x\"", "is not a path"),
        ("cache = \"assets\"", "strip_prefix = \"/images\"", "is not the beginning of the path"),
        ("cache = \"assets\"", "upgrade = [\"web socket\"]", "is not a protocol"),
        ("cache = \"assets\"", "upgrade = [\"h2c\"]", "nobody here has seen"),
        (
            "cache = \"assets\"",
            "upgrade = [\"websocket\", \"WebSocket\"]",
            "`WebSocket` is listed twice",
        ),
        ("[cache.assets]", "[cache.assets]\nttl = { max = \"1m\" }", "`default` must be between"),
        (
            "[cache.assets]",
            "[cache.assets]\nnegative_ttl = { \"200\" = \"1m\" }",
            "`200` is not a status",
        ),
        (
            "[cache.assets]",
            "[cache.assets]\nttl = { jitter = 0.6 }",
            "jitter must be between 0 and 0.5",
        ),
        (
            "[cache.assets]",
            "[cache.assets]\ntargeted = [\"A-Cache-Control\", \"a-cache-control\"]",
            "is listed twice",
        ),
        ("[cache.assets]", "[cache.assets]\ntargeted = [\"a b\"]", "`a b` is not a field name"),
        ("[cache.assets]", "[cache.assets]\ntargeted = [\"expires\"]", "it counts anyway"),
        ("[cache.assets]", "[cache.assets]\ntags = [\"a b\"]", "`a b` is not a field name"),
        ("[cache.assets]", "[cache.assets]\ntags = [\"X\", \"x\"]", "`x` is listed twice"),
        ("[edge.icn-1]", "[edge.icn-1]\npurge_from = [\"10.0.0.1/8\"]", "10.0.0.1/8"),
        (
            "[cache.assets]",
            "[cache.assets]\ntargeted = [\"Surrogate-Control\"]",
            "write surrogate_control = true",
        ),
        ("[cache.assets]", "[cache.assets]\nvary = { max = 0 }", "max must be between 1 and 4096"),
        (
            "[cache.assets]",
            "[cache.assets]\nvary = { languages = [\"en\", \"EN\"] }",
            "`EN` is listed twice",
        ),
        (
            "[cache.assets]",
            "[cache.assets]\nvary = { languages = [\"english!\"] }",
            "`english!` is not a language",
        ),
        ("[zone.\"cdn.test\"]", "[zone.\"cdn..test\"]", "is not a domain name"),
        ("[datacenter.fra]", "[datacenter.\"f ra\"]", "`f ra` cannot be a name"),
    ] {
        let found = messages(&GOOD.replacen(from, to, 1));
        assert!(found.iter().any(|message| message.contains(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn risky_settings_are_warned_of() {
    for (from, to, expected) in [
        ("[steering.web]", "[steering.web]\ndatacenters = [\"icn\"]", "alone in its pool"),
        ("[steering.web]", "[steering.web]\nttl = { max = \"1h\" }", "longer than failover needs"),
        ("check = \"edge\"", "", "without a `check`"),
        ("[edge.icn-1]", "[edge.icn-1]\npurge_from = [\"0.0.0.0/0\"]", "anybody may purge"),
        ("check = \"edge\"", "ramp = \"1m\"", "returns only from the operator's drain"),
        ("kind = \"http\"", "kind = \"http\"\nmin_days = 9", "looks at certificates"),
        ("kind = \"http\"", "kind = \"https\"\nmin_days = 90", "would fail"),
        (
            "[steering.web]",
            "[steering.web]\nmax_share = { icn = 0.5, fra = 0.25 }",
            "all together take 0.75 of the clients",
        ),
        (
            "[steering.web]",
            "[steering.web]\nramp = \"10m\"\necs = { max_v4 = 8 }",
            "16 and 32 would be fine enough",
        ),
        (
            "[steering.web]",
            "[geo]\nnetworks = { \"10.0.0.0/26\" = \"icn\" }\n[steering.web]",
            "10.0.0.0/26 is longer than scopes may be",
        ),
        (
            "[steering.web]",
            "[steering.web]\nshed = { above = 0.8, resume = 0.6 }",
            "this needs a `check` of kind \"report\"",
        ),
        (
            "[steering.web]",
            "[steering.web]\nshed = { resume = 0.6 }",
            "without `above` nothing is ever shed",
        ),
        (
            "[steering.web]",
            "[steering.web]\nttl = { min = \"500ms\" }",
            "a TTL is whole seconds: this is 0 s",
        ),
        (
            "[steering.web]",
            "[datacenter.cdg]\nlocation = [49.0, 2.5]\nweight = 0\n[steering.web]\norder = \"weighted\"\ndatacenters = [\"cdg\"]",
            "all its datacenters have `weight` = 0",
        ),
        (
            "[steering.web]",
            "[steering.web]\nbounded_load = 2.0",
            "only `pick` = \"hash-client\" and \"hash-name\" look at it",
        ),
        (
            "steer = { www = \"web\" }",
            "steer = { www = \"web\", \"*\" = \"web\" }",
            "a wildcard over the steered name `www`",
        ),
        (
            "routes = [",
            "routes = [{ path = \"/*\", origin = \"static\" }, ",
            "no request comes here",
        ),
        (
            "[cache.assets]",
            "[cache.assets]\nttl = { min = \"5m\" }",
            "that say max-age=0 are served this long",
        ),
        (
            "[cache.assets]",
            "[cache.assets]\nprofile = \"rfc\"\nstale = { while_revalidate = \"5m\" }",
            "only the origin can allow it",
        ),
        ("[cache.assets]", "[cache.assets]\nvary = { max = 1000 }", "can fill the store"),
        (
            "[cache.assets]",
            "[cache.assets]\nkey = { headers = [\"Cookie\"] }",
            "hardly anything is shared",
        ),
        (
            "[cache.assets]",
            "[cache.assets]\nno_vary_search = true\nkey = { query = \"none\" }",
            "the query is not in the key anyway",
        ),
        (
            "[nameserver.ns1]",
            "[nameserver.ns1]\ndoh = [\"127.0.0.53:443\"]\ndoq = [\"127.0.0.53:443\"]",
            "the certificate is a self-signed one",
        ),
        (
            "[nameserver.ns1]",
            "[nameserver.ns1]\ntls = { certificate_file = \"a\", key_file = \"b\" }",
            "there is no listener",
        ),
    ] {
        let loaded = load_text(&GOOD.replacen(from, to, 1))
            .unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert!(
            loaded.warnings.iter().any(|problem| problem.message.contains(expected)),
            "{expected}: {:#?}",
            loaded.warnings
        );
    }
}

#[test]
fn a_broken_line_is_pointed_at() {
    let found = messages("[edge.a]\nhttp = [\"127.0.0.1:80\"\nadmin = 1\n");
    assert!(found[0].starts_with("3:") || found[0].starts_with("2:"), "{found:?}");
}

#[test]
fn the_environment_is_filled_in() {
    let text = GOOD.replace("parents = [\"icn-p1\"]", "parents = [\"${SHIELD}\"]");
    assert_eq!(
        load_text(&text).unwrap().spec.tier["shield"].parents,
        Parents::Named(vec!["icn-p1".to_owned()])
    );
    let found = messages(&GOOD.replace("parents = [\"icn-p1\"]", "parents = [\"${SHILD}\"]"));
    assert!(found.iter().any(|message| message.contains("`SHILD` is not set")), "{found:?}");
}

#[test]
fn included_files_count_as_one() {
    let (first, second) = GOOD.split_at(GOOD.find("[origin.static]").unwrap());
    let first = format!("include = [\"sites/*.toml\"]\n{first}");
    let files = [("etc/m.toml", first.as_str()), ("etc/sites/www.toml", second)];
    let loaded = load(Path::new("etc/m.toml"), &Memory::new(files)).unwrap();
    assert_eq!(loaded.spec.site.len(), 1);
    assert_eq!(loaded.files.len(), 2);

    let twice = format!("{second}\n[check.edge]\nkind = \"tcp\"");
    let files = [("etc/m.toml", first.as_str()), ("etc/sites/www.toml", &twice)];
    let problems = load(Path::new("etc/m.toml"), &Memory::new(files)).unwrap_err();
    let shown = problems[0].to_string();
    assert!(shown.starts_with("etc/sites/www.toml:11:"), "{shown}");
    assert!(shown.contains("there is a `[check.edge]` in another file already"), "{shown}");

    let wrong = second.replace("origin = \"static\"", "origin = \"statik\"");
    let files = [("etc/m.toml", first.as_str()), ("etc/sites/www.toml", &wrong)];
    let problems = load(Path::new("etc/m.toml"), &Memory::new(files)).unwrap_err();
    assert!(problems[0].to_string().starts_with("etc/sites/www.toml:9:"), "{problems:?}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let problems = load(Path::new("etc/none.toml"), &Memory::new([])).unwrap_err();
    assert!(
        problems[0].to_string().starts_with("etc/none.toml: error: cannot be read"),
        "{problems:?}"
    );
}

/// A table that exists but has mistakes of its own does not make every reference to it a mistake too.
#[test]
fn a_mistake_is_reported_once() {
    let text = GOOD.replace("servers = [{ url = \"http://127.0.9.1:9001\" }]", "servers = 5");
    let found = messages(&text);
    assert_eq!(found.len(), 1, "{found:#?}");
}

/// A mistake and the messages it leads to: itself, and nothing that only follows from it.
#[test]
fn what_follows_from_a_mistake_is_not_reported() {
    for (good, bad, expected) in [
        // The key is there, with a slip in its name.
        ("admin = \"127.0.0.53:8053\"", "admni = \"127.0.0.53:8053\"", "unknown key `admni`"),
        // Its list is empty only because its element cannot be read.
        ("\"127.0.0.53:5353\"", "\"127.0.0.53\"", "`127.0.0.53` is not an address with a port"),
        ("http://127.0.9.1:9001", "127.0.9.1", "`127.0.9.1` is not a server's URL"),
        // All that stands under the misspelt table has its name.
        ("[check.edge]", "[chek.edge]", "unknown key `chek`; did you mean `check`?"),
        // A location has two numbers; datacenters are there, though one cannot be read.
        ("[37.46, 126.44]", "[37.46]", "a location is two numbers"),
        ("[37.46, 126.44]", "[37.46, 126.44, 3.0]", "a location is two numbers"),
        ("[37.46, 126.44]", "\"icn\"", "expected a list"),
        // Names the type that is wanted.
        ("admin = \"127.0.0.53:8053\"", "admin = 8053", "expected an address with a port"),
    ] {
        assert!(GOOD.contains(good), "{good}");
        let found = messages(&GOOD.replacen(good, bad, 1));
        assert_eq!(found.len(), 1, "{bad}: {found:#?}");
        assert!(found[0].contains(expected), "{bad}: {found:#?}");
    }
    let twice = format!("{GOOD}\n[datacenter.icn]\nlocation = [1.0, 2.0]\nweight = 2\n");
    assert_eq!(messages(&twice).len(), 1, "{:#?}", messages(&twice));
}

#[test]
fn an_element_of_a_list_is_pointed_at() {
    let text = format!("{GOOD}\n[check.b]\nkind = \"http\"\nstatus = [\"200\", \"abc\"]\n");
    let problems = load_text(&text).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let place = problems[0].place.as_ref().unwrap();
    assert_eq!((place.column, place.width), (18, 5));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let problems = load_text("\u{feff}[datacentre]\n").unwrap_err();
    let place = problems[0].place.as_ref().unwrap();
    assert_eq!((place.line, place.column, place.text.as_str()), (1, 2, "[datacentre]"));
}

#[test]
fn of_a_long_line_a_part_is_shown() {
    let text = format!("[log]\nsample = [{}]\n", "1, ".repeat(100_000));
    for problem in load_text(&text).unwrap_err() {
        assert!(problem.to_string().len() < 1000, "{}", problem.to_string().len());
    }
    let place = Place::of(&"x".repeat(10_000), &(5000..5003));
    assert_eq!((place.column, place.width, place.text.len()), (5001, 3, 160));
}

#[test]
fn a_pattern_may_match_the_file_itself() {
    let files = Memory::new([("m.toml", "include = [\"m.toml\"]\n[cluster]\nname = \"a\"\n")]);
    let loaded = load(Path::new("m.toml"), &files).unwrap_or_else(|p| panic!("{}", listing(&p)));
    assert_eq!(loaded.files.len(), 1);
}

#[test]
fn of_very_many_mistakes_a_hundred_are_shown() {
    use std::fmt::Write;
    let mut text = GOOD.to_owned();
    for n in 0..2000 {
        let route = format!("routes = [{{ path = \"/*\", origin = \"none{n}\" }}]");
        writeln!(text, "[site.s{n}]\nhosts = [\"s{n}.test\"]\n{route}").unwrap();
    }
    assert_eq!(load_text(&text).unwrap_err().len(), MAX_PROBLEMS);
}

#[test]
fn encodings_are_known_and_listed_once() {
    let with =
        |keys: &str| messages(&GOOD.replace("[cache.assets]", &format!("[cache.assets]\n{keys}")));
    assert_eq!(with("compress = [\"zstd\", \"br\", \"gzip\"]"), [""; 0]);
    for (keys, expected) in [
        ("compress = [\"deflate\"]", "no encoding"),
        ("compress = [\"br\", \"br\"]", "listed twice"),
        ("compress = [\"br\"]\nkey = { headers = [\"Accept-Encoding\"] }", "many times over"),
    ] {
        assert!(with(keys).iter().any(|told| told.contains(expected)), "{keys}: {:?}", with(keys));
    }
}

/// Settings of origins that weaken or do nothing are told; those that cannot be are refused.
#[test]
fn origins_over_tls_and_signed_ones() {
    let with = |url: &str, keys: &str| {
        let text = GOOD.replace("http://127.0.9.1:9001", url);
        messages(&text.replace("[cache.assets]", &format!("{keys}\n[cache.assets]")))
    };
    let https = "https://origin.test";
    for (url, keys, expected) in [
        (https, "sni = \"o.test\"\nprotocol = \"http2\"", ""),
        (https, "sni = \"o test\"", "not a name"),
        (https, "verify = false", "read and change"),
        (https, "verify = false\nca_file = \"ca.pem\"", "no effect beside"),
        ("http://127.0.9.1:9001", "sni = \"o.test\"", "no server is asked over https"),
        (https, "protocol = \"http3\"", "http3"),
        (
            https,
            "host = \"b.s3.test\"\nsigv4 = { region = \"eu-west-1\", credentials_file = \"c\" }",
            "",
        ),
        (https, "sigv4 = { region = \"eu-west-1\", credentials_file = \"c\" }", "without `host`"),
        (
            https,
            "host = \"b.s3.test\"\nsigv4 = { region = \"eu west\", credentials_file = \"c\" }",
            "not a region",
        ),
        (
            https,
            "host = \"b.s3.test\"\nsigv4 = { region = \"r\", service = \"\", credentials_file = \"c\" }",
            "not a service",
        ),
    ] {
        let found = with(url, keys);
        match expected {
            "" => assert_eq!(found, [""; 0], "{keys}"),
            _ => assert!(found.iter().any(|told| told.contains(expected)), "{keys}: {found:?}"),
        }
    }
}
