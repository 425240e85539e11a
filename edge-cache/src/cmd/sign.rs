//! `sign`: makes signed URLs and cookies with the keys of the configuration. Asks no node.

use std::path::PathBuf;

use shared::config::{Dur, Spec, nearest};
use shared::io::clock;
use shared::io::command::{BAD_CONFIG, DONE, FAILED, Global, Output, USAGE, fail, print};
use shared::prefix::Prefix;

use crate::io::rules::read_keys;
use crate::key::host_of;
use crate::route::{Hosts, PathPattern};
use crate::rules::signed::{COOKIE_NAME, Grant, Keys, Scope, other_parameters, without_signature};
use crate::url::{UrlParts, normalise_path};

/// What is to be signed.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Absolute URL, such as `https://www.cdn.test/films/one.mp4`
    url: String,
    /// Name of the key, one of the route's `[signing.NAME]`
    #[arg(long, value_name = "NAME")]
    key: String,
    /// Good for so long from now on, such as `90s`, `1h`, `7d`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Dur,
    /// Good only after so long from now on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    from: Option<Dur>,
    /// Good for this path and all below it, with any query, instead of for the one URL
    #[arg(long, value_name = "PATH")]
    prefix: Option<String>,
    /// Good for clients of this network only, such as `192.0.2.0/24`
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    network: Option<Prefix>,
    /// Print a cookie instead of a URL: the value of a Set-Cookie field
    #[arg(long)]
    cookie: bool,
}

fn duration(text: &str) -> Result<Dur, String> {
    Dur::try_from(text.to_owned())
}

fn network(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(|error: shared::prefix::PrefixError| error.to_string())
}

/// Signs and prints.
pub(super) fn run(global: &Global, args: &Args) -> u8 {
    let loaded = match global.configuration() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let now = clock::now().secs();
    let signed = match made(&loaded.spec, args, now) {
        Ok(signed) => signed,
        Err((why, code)) => return fail(&why, code),
    };
    let text = match global.output {
        Output::Table => signed.text,
        Output::Json => {
            let what = if args.cookie { "set_cookie" } else { "url" };
            serde_json::json!({ what: signed.text, "key": args.key, "expires": signed.expires })
                .to_string()
        }
    };
    print(&format!("{text}\n"));
    DONE
}

struct Made {
    text: String,
    expires: u64,
}

/// The URL or the cookie, or what is wrong and the exit code for that.
fn made(spec: &Spec, args: &Args, now: u64) -> Result<Made, (String, u8)> {
    let usage = |why: String| (why, USAGE);
    let url = UrlParts::new(&args.url)
        .map_err(|_| usage(format!("`{}` is no absolute http or https URL", args.url)))?;
    let host = host_of(&url.authority);
    let listed = keys_of(spec, host, &url.path).map_err(|why| (why, BAD_CONFIG))?;
    if !listed.contains_key(&args.key) {
        let near = nearest(&args.key, listed.keys().map(String::as_str));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let names = listed.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(usage(format!("there is no key `{}`{hint} There are: {names}", args.key)));
    }
    let keys: Keys = read_keys(&listed).map_err(|why| (why, BAD_CONFIG))?;
    let scope = match &args.prefix {
        None => Scope::Url { path: url.path.to_string(), query: other_parameters(url.query) },
        Some(prefix) => match normalise_path(prefix) {
            Ok(normal) => Scope::Prefix(normal.into_owned()),
            Err(_) => return Err(usage(format!("`{prefix}` is no path: begin it with `/`"))),
        },
    };
    let lasts = args.expires.get().as_secs();
    let from = args.from.map(|from| now + from.get().as_secs());
    if lasts == 0 || from.is_some_and(|from| from >= now + lasts) {
        return Err(usage("it would never be good: --expires must come after --from".to_owned()));
    }
    let path = match &scope {
        Scope::Prefix(prefix) | Scope::Url { path: prefix, .. } => prefix.clone(),
    };
    if !(url.path.starts_with(path.as_str())
        && (path.ends_with('/')
            || url.path.len() == path.len()
            || url.path[path.len()..].starts_with('/')))
    {
        return Err(usage(format!("`{}` is not below the prefix `{path}`", url.path)));
    }
    let expires = now + lasts;
    let grant = Grant {
        key: args.key.clone(),
        host: host.to_owned(),
        scope,
        expires,
        from,
        network: args.network,
    };
    let parameters = keys.sign(&grant).ok_or_else(|| ("the key cannot sign".to_owned(), FAILED))?;
    let text = if args.cookie {
        // A semicolon would end the attribute.
        let path = if path.contains(';') { "/" } else { &path };
        let secure = if url.scheme == "https" { "; Secure" } else { "" };
        format!(
            "{COOKIE_NAME}={parameters}; Path={path}; Max-Age={lasts}{secure}; HttpOnly; SameSite=Lax"
        )
    } else {
        let query = without_signature(url.query).filter(|query| !query.is_empty());
        let query = query.map(|query| format!("{query}&")).unwrap_or_default();
        format!("{}://{}{}?{query}{parameters}", url.scheme, url.authority, url.path)
    };
    Ok(Made { text, expires })
}

type Listed = std::collections::BTreeMap<String, PathBuf>;

/// The keys of the route that a URL belongs to.
fn keys_of(spec: &Spec, host: &str, path: &str) -> Result<Listed, String> {
    let mut hosts = Hosts::default();
    for site in spec.site.values() {
        for name in &site.hosts {
            hosts.insert(name, site)?;
        }
    }
    let site = hosts.find(host).ok_or_else(|| format!("no site has the host `{host}`"))?;
    let matches =
        |pattern: &str| PathPattern::new(pattern).is_ok_and(|pattern| pattern.matches(path));
    let route = site.routes.iter().find(|route| matches(&route.path));
    let route = route.ok_or_else(|| format!("no route of `{host}` has the path `{path}`"))?;
    let Some(name) = &route.signed else {
        return Err(format!(
            "the route `{}` is not signed: write signed = \"NAME\" in it, and [signing.NAME]",
            route.path
        ));
    };
    let signing = spec.signing.get(name).ok_or_else(|| format!("there is no [signing.{name}]"))?;
    Ok(signing.keys.clone())
}
