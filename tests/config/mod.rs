//! The configuration's promises: nothing unknown is taken, the reference file is true, every example can be used.

use std::path::{Path, PathBuf};

use shared::config::{Files, Loaded, Problem, load};
use shared::io::files::System;

/// One file in memory.
struct One<'a>(&'a str);

impl Files for One<'_> {
    fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
        Ok(self.0.as_bytes().to_vec())
    }
    fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }
    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

fn read(text: &str) -> Result<Loaded, Vec<Problem>> {
    load(Path::new("m.toml"), &One(text))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn show(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// Every table of the configuration, with a key in it that does not exist.
const BOGUS: &[(&str, &str)] = &[
    ("", "bogus = 1"),
    ("cluster", "[cluster]\nbogus = 1"),
    ("geo", "[geo]\nbogus = 1"),
    ("log", "[log]\nbogus = 1"),
    ("datacenter", "[datacenter.a]\nbogus = 1"),
    ("nameserver", "[nameserver.a]\nbogus = 1"),
    ("nameserver.rate_limit", "[nameserver.a]\nrate_limit = { bogus = 1 }"),
    ("nameserver.tls", "[nameserver.a]\ntls = { bogus = 1 }"),
    ("edge", "[edge.a]\nbogus = 1"),
    ("edge.disk", "[edge.a]\ndisk = { bogus = 1 }"),
    ("edge.disks", "[edge.a]\ndisks = [{ bogus = 1 }]"),
    ("zone", "[zone.\"a.test\"]\nbogus = 1"),
    ("steering", "[steering.a]\nbogus = 1"),
    ("steering.rules", "[steering.a]\nrules = [{ bogus = 1 }]"),
    ("steering.ttl", "[steering.a]\nttl = { bogus = 1 }"),
    ("steering.ecs", "[steering.a]\necs = { bogus = 1 }"),
    ("steering.shed", "[steering.a]\nshed = { bogus = 1 }"),
    ("check", "[check.a]\nbogus = 1"),
    ("origin", "[origin.a]\nbogus = 1"),
    ("origin.servers", "[origin.a]\nservers = [{ bogus = 1 }]"),
    ("origin.health", "[origin.a]\nhealth = { bogus = 1 }"),
    ("origin.sigv4", "[origin.a]\nsigv4 = { bogus = 1 }"),
    ("origin.timeouts", "[origin.a]\ntimeouts = { bogus = 1 }"),
    ("cache", "[cache.a]\nbogus = 1"),
    ("cache.ttl", "[cache.a]\nttl = { bogus = 1 }"),
    ("cache.stale", "[cache.a]\nstale = { bogus = 1 }"),
    ("cache.vary", "[cache.a]\nvary = { bogus = 1 }"),
    ("cache.key", "[cache.a]\nkey = { bogus = 1 }"),
    ("tier", "[tier.a]\nbogus = 1"),
    ("site", "[site.a]\nbogus = 1"),
    ("site.routes", "[site.a]\nroutes = [{ bogus = 1 }]"),
    ("site.routes.redirect", "[site.a]\nroutes = [{ redirect = { bogus = 1 } }]"),
    ("site.routes.request_headers", "[site.a]\nroutes = [{ request_headers = { bogus = 1 } }]"),
    ("site.routes.response_headers", "[site.a]\nroutes = [{ response_headers = { bogus = 1 } }]"),
    ("site.routes.cors", "[site.a]\nroutes = [{ cors = { bogus = 1 } }]"),
    ("site.routes.access", "[site.a]\nroutes = [{ access = { bogus = 1 } }]"),
    ("signing", "[signing.a]\nbogus = 1"),
    ("site.tls", "[site.a]\ntls = { bogus = 1 }"),
];

/// The keys that a table has, as the error about the bogus one lists them.
fn known_keys(text: &str) -> Vec<String> {
    let problems = read(text).unwrap_err();
    let problem = problems
        .iter()
        .find(|problem| problem.message.starts_with("unknown key `bogus`"))
        .unwrap_or_else(|| panic!("`{text}` is taken:\n{}", show(&problems)));
    let place = problem.place.as_ref().expect("an unknown key has a place");
    assert!(place.text[place.column - 1..].starts_with("bogus"), "{problem}");
    let note = problem.note.as_deref().expect("an unknown key has the known ones");
    note.trim_start_matches("known keys: ").split(", ").map(str::to_owned).collect()
}

#[test]
fn a_bogus_key_in_any_table_is_refused() {
    for (table, text) in BOGUS {
        assert!(!known_keys(text).is_empty(), "{table}");
    }
    // No table of the file was forgotten above.
    for table in known_keys("bogus = 1") {
        assert!(table == "include" || BOGUS.iter().any(|(known, _)| *known == table), "{table}");
    }
}

#[test]
fn the_reference_has_every_key() {
    let text = std::fs::read_to_string(root().join("config/meridian.toml")).unwrap();
    for (table, bogus) in BOGUS {
        for key in known_keys(bogus) {
            let here = text.lines().any(|line| {
                let line = line.trim_start_matches("# ").trim_start();
                line.starts_with(&format!("[{key}"))
                    || line.starts_with(&format!("{key} ="))
                    || line.contains(&format!("{{ {key} ="))
                    || line.contains(&format!(", {key} ="))
            });
            // Conditions of rules are listed in the comment on `rules`.
            let listed = *table == "steering.rules" && text.contains(&key);
            assert!(here || listed, "`{key}` of `{table}` is not in config/meridian.toml");
        }
    }
}

#[test]
fn the_reference_is_the_defaults() {
    let reference = load(&root().join("config/meridian.toml"), &System)
        .unwrap_or_else(|problems| panic!("{}", show(&problems)));
    // Only what has no default.
    let least = r#"
        [datacenter]
        icn = { location = [37.46, 126.44] }
        fra = { location = [50.03, 8.57] }
        [nameserver.ns1]
        listen = ["127.0.0.53:5353"]
        admin = "127.0.0.53:8053"
        [edge.icn-1]
        datacenter = "icn"
        address = ["127.0.1.1"]
        http = ["127.0.1.1:8080"]
        https = ["127.0.1.1:8443"]
        admin = "127.0.1.1:9090"
        [edge.icn-p1]
        datacenter = "icn"
        role = "parent"
        http = ["127.0.1.10:8080"]
        admin = "127.0.1.10:9090"
        [edge.fra-1]
        datacenter = "fra"
        address = ["127.0.2.1"]
        http = ["127.0.2.1:8080"]
        admin = "127.0.2.1:9090"
        [zone."cdn.test"]
        file = "demo/zones/cdn.test.zone"
        steer = { "www" = "web" }
        [steering.web]
        check = "edge"
        [check.edge]
        kind = "http"
        [origin.static]
        servers = [{ url = "http://127.0.9.1:9001" }]
        [origin.checked]
        servers = [{ url = "http://127.0.9.2:9001" }]
        health = {}
        [cache.default]
        [tier.shield]
        parents = ["icn-p1"]
        [site.www]
        hosts = ["www.cdn.test"]
        routes = [
          { path = "/images/*", origin = "static", strip_prefix = "/images" },
          { path = "/api/*", origin = "checked", cache = "off" },
          { path = "/*", origin = "static" },
        ]
    "#;
    let mut least = read(least).unwrap_or_else(|problems| panic!("{}", show(&problems))).spec;
    for zone in least.zone.values_mut() {
        zone.file = root().join("config").join(&zone.file);
    }
    assert_eq!(reference.spec, least);
    assert!(reference.warnings.is_empty(), "{}", show(&reference.warnings));
}

#[test]
fn every_example_can_be_used() {
    let mut seen = 0;
    for folder in ["config", "config/examples", "config/demo"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            if let Err(problems) = load(&path, &System) {
                panic!("{}", show(&problems));
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} configurations found");
}

/// What a stranger copies first: the configuration of the README and its zone file, through `geodns check`.
#[test]
fn the_example_of_the_readme_can_be_used() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = |begin: &str| {
        let from = readme.find(begin).unwrap_or_else(|| panic!("the README has no {begin}"));
        let block = &readme[from..];
        let body = block.split_once('\n').unwrap().1;
        body.split("\n```").next().unwrap().to_owned() + "\n"
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meridian.toml");
    std::fs::write(&path, block("```toml\n")).unwrap();
    std::fs::write(dir.path().join("cdn.example.zone"), block("```\n$TTL")).unwrap();
    let output =
        harness::process::Program::Geodns.run(&["check", "--config", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("warning:").count(), 2, "as the README says: {text}");
}

/// The example of the design names things that it leaves out. Everything else about it must be understood.
#[test]
fn the_shape_of_the_contract_is_understood() {
    let text = std::fs::read_to_string(root().join("config/examples/cdn.toml")).unwrap();
    let loaded = load(&root().join("config/examples/cdn.toml"), &System)
        .unwrap_or_else(|problems| panic!("{}", show(&problems)));
    let spec = &loaded.spec;
    assert_eq!(spec.site["www"].routes.len(), 3);
    assert_eq!(spec.origin["static"].failover.as_deref(), Some("backup"));
    assert_eq!(spec.geo.networks["10.1.0.0/16"], "icn");
    assert_eq!(spec.steering["web"].rules.len(), 2);
    assert_eq!(spec.zone["cdn.test"].steer["*.img"], "web");

    // Without the parts that the design leaves out, just the references to them are wrong.
    let shortened = text.split("# ---- What the design leaves out").next().unwrap();
    let problems = read(shortened).unwrap_err();
    let mut missing: Vec<String> = problems
        .iter()
        .filter(|problem| problem.is_error())
        .map(|problem| problem.message.split(';').next().unwrap().to_owned())
        .collect();
    missing.sort();
    assert_eq!(
        missing,
        [
            "there is no edge `fra-p1`",
            "there is no origin `api`",
            "there is no origin `backup`",
            "there is no origin `bucket`",
        ]
    );
}

/// xorshift: the same mistakes in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// The demo's configuration cut off, with bytes changed, taken out, doubled: an error has a file and, but for a file
/// that cannot be read at all, a place within it.
#[test]
fn a_damaged_configuration_is_refused_with_a_place_or_still_good() {
    struct Bytes(Vec<u8>);
    impl Files for Bytes {
        fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Ok(self.0.clone())
        }
        fn glob(&self, _: &str) -> Result<Vec<PathBuf>, String> {
            Ok(Vec::new())
        }
        fn env(&self, _: &str) -> Option<String> {
            None
        }
    }
    const ROUNDS: usize = 600;
    let whole = std::fs::read(root().join("config/demo/meridian.toml")).unwrap();
    let signs = b"[]{}\"'=.,#\n\t \0\xff$-0a";
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut refused, mut placed) = (0, 0);
    for round in 0..ROUNDS {
        let mut bytes = whole.clone();
        match round % 4 {
            0 => bytes.truncate(dice.below(whole.len())),
            1 => {
                for _ in 0..=dice.below(3) {
                    let at = dice.below(bytes.len());
                    bytes[at] = signs[dice.below(signs.len())];
                }
            }
            2 => {
                let at = dice.below(bytes.len());
                let end = (at + 1 + dice.below(40)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let at = dice.below(bytes.len());
                let end = (at + 1 + dice.below(200)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        let lines = String::from_utf8_lossy(&bytes).lines().count() + 1;
        let Err(problems) = load(Path::new("m.toml"), &Bytes(bytes)) else { continue };
        refused += 1;
        assert!(problems.iter().any(Problem::is_error), "round {round}: {}", show(&problems));
        for problem in &problems {
            assert_eq!(problem.file, Path::new("m.toml"), "round {round}");
            assert!(!problem.to_string().is_empty());
            if let Some(place) = &problem.place {
                placed += 1;
                assert!((1..=lines).contains(&place.line) && place.column >= 1, "{problem}");
            }
        }
        for (index, problem) in problems.iter().enumerate() {
            assert!(!problems[..index].contains(problem), "round {round} twice: {problem}");
        }
    }
    assert!(refused > ROUNDS / 2 && placed >= refused, "{refused} refused, {placed} with a place");
}
