//! What this node says of itself and keeps of its own, read when it starts and with every reload.

use std::io::Read;
use std::sync::Arc;

use shared::config::{Loaded, NameserverSpec, Problem, RateLimitSpec, Severity, Step};
use shared::io::files::read_secret;

use super::huge;
use crate::answer::Server;
use crate::cookie::Secrets;
use crate::rrl::{Limiter, Settings};

/// Reads what the configuration says of the nameserver `name`. `before`: what held until now; random numbers and
/// accounts of clients go on where nothing was changed.
pub(super) fn server(
    config: &Loaded,
    name: &str,
    before: Option<&Server>,
) -> Result<Server, Vec<Problem>> {
    let Some(spec) = config.spec.nameserver.get(name) else { return Ok(Server::default()) };
    let problem = |key: &str, why: String| {
        let at = [Step::from("nameserver"), name.into(), key.into()];
        vec![config.problem(&at, Severity::Error, why)]
    };
    let cookies = cookies(spec, before).map_err(|why| problem("cookie_secret_file", why))?;
    let limiter = limiter(&spec.rate_limit, before).map_err(|why| problem("rate_limit", why))?;
    let text = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().into());
    Ok(Server {
        nsid: text(&spec.nsid),
        version: text(&spec.version),
        idle: spec.tcp_idle.get(),
        cookies: Some(cookies),
        limiter,
    })
}

/// What is wrong with the file of a nameserver's cookie secrets.
pub fn cookie_problem(config: &Loaded, name: &str) -> Option<Problem> {
    let spec = config.spec.nameserver.get(name)?;
    spec.cookie_secret_file.as_ref()?;
    let why = cookies(spec, None).err()?;
    let at = [Step::from("nameserver"), name.into(), "cookie_secret_file".into()];
    Some(config.problem(&at, Severity::Error, why))
}

fn cookies(spec: &NameserverSpec, before: Option<&Server>) -> Result<Secrets, String> {
    match &spec.cookie_secret_file {
        Some(path) => {
            let text = read_secret(path)?;
            Secrets::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
        }
        None => match before.and_then(|before| before.cookies.as_ref()) {
            Some(secrets) if secrets.is_random() => Ok(secrets.clone()),
            _ => Ok(Secrets::random(random()?)),
        },
    }
}

fn limiter(spec: &RateLimitSpec, before: Option<&Server>) -> Result<Option<Arc<Limiter>>, String> {
    if spec.responses == 0 {
        return Ok(None);
    }
    let settings = Settings {
        rate: spec.responses,
        slip: spec.slip,
        prefix_v4: spec.prefix_v4,
        prefix_v6: spec.prefix_v6,
        exempt: spec.exempt.iter().filter_map(|network| network.parse().ok()).collect(),
    };
    match before.and_then(|before| before.limiter.as_ref()) {
        Some(limiter) if *limiter.settings() == settings => Ok(Some(Arc::clone(limiter))),
        _ => {
            let limiter = Limiter::new(settings, &random()?);
            huge::gather([limiter.region()]);
            Ok(Some(Arc::new(limiter)))
        }
    }
}

/// From the kernel: nobody can guess it.
pub(super) fn random() -> Result<[u8; 16], String> {
    let mut octets = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut octets))
        .map_err(|error| format!("there are no random numbers in /dev/urandom: {error}"))?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use shared::io::files::System;
    use shared::time::UnixMillis;

    use super::*;
    use crate::cookie::State;
    use crate::io::node::tests::{CONFIG, ZONE, write};

    const NOW: UnixMillis = UnixMillis(1_559_731_985_000);

    fn read(dir: &Path, keys: &str, before: Option<&Server>) -> Result<Server, String> {
        write(dir, &CONFIG.replace("state = \"state.json\"", keys), ZONE);
        let config = shared::config::load(&dir.join("meridian.toml"), &System).unwrap();
        server(&config, "ns1", before).map_err(|problems| problems[0].to_string())
    }

    fn cookie(server: &Server, sent: &[u8]) -> (State, [u8; 24]) {
        let client = "198.51.100.100".parse().unwrap();
        server.cookies.as_ref().unwrap().check(sent, client, NOW)
    }

    #[test]
    fn a_file_of_secrets_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cookie");
        let keys = "cookie_secret_file = \"cookie\"";
        assert!(read(dir.path(), keys, None).unwrap_err().contains("cannot read"));
        std::fs::write(&path, "no secret").unwrap();
        let why = read(dir.path(), keys, None).unwrap_err();
        assert!(why.contains("cookie: line 1 is not 32 hexadecimal digits"), "{why}");
        assert!(why.contains("meridian.toml:9:"), "{why}");

        std::fs::write(&path, "e5e973e5a6b2a43f48e7dc849e37bfcf\n").unwrap();
        let first = read(dir.path(), keys, None).unwrap();
        let (_, made) = cookie(&first, &[1; 8]);
        let rolled = "445536bcd2513298075a5d379663c962\ne5e973e5a6b2a43f48e7dc849e37bfcf\n";
        std::fs::write(&path, rolled).unwrap();
        let second = read(dir.path(), keys, Some(&first)).unwrap();
        let (state, renewed) = cookie(&second, &made);
        assert_eq!(state, State::Valid);
        assert_ne!(renewed, made);
        assert_eq!(cookie(&first, &renewed).0, State::Invalid);
    }

    #[test]
    fn what_is_random_outlives_a_reload_and_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let limit = "rate_limit = { responses = 10 }";
        let first = read(dir.path(), limit, None).unwrap();
        let made = cookie(&first, &[1; 8]).1;
        let again = read(dir.path(), limit, Some(&first)).unwrap();
        assert_eq!(cookie(&again, &made), (State::Valid, made));
        let accounts = |server: &Server| Arc::as_ptr(server.limiter.as_ref().unwrap());
        assert_eq!(accounts(&first), accounts(&again));
        let other = read(dir.path(), "rate_limit = { responses = 11 }", Some(&first)).unwrap();
        assert_ne!(accounts(&first), accounts(&other));
        assert!(read(dir.path(), "", Some(&first)).unwrap().limiter.is_none());

        assert_eq!(cookie(&read(dir.path(), limit, None).unwrap(), &made).0, State::Invalid);
        // A secret that was in a file, and is no more, is not kept.
        std::fs::write(dir.path().join("cookie"), "e5e973e5a6b2a43f48e7dc849e37bfcf").unwrap();
        let shared = read(dir.path(), "cookie_secret_file = \"cookie\"", Some(&first)).unwrap();
        let made = cookie(&shared, &[1; 8]).1;
        let own = read(dir.path(), "", Some(&shared)).unwrap();
        assert_eq!(cookie(&own, &made).0, State::Invalid);
    }
}
