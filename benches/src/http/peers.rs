//! Each cache's configuration of the same thing: everything is fetched from one origin and stored, one worker, no logs,
//! so much memory and so much disk, everything in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::client::HOST;

/// A cache, in the form in which it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Ours, as it comes.
    EdgeCache,
    /// nginx with proxy_cache. It has no memory tier of its own: in memory its files lie on a tmpfs.
    Nginx,
    /// Varnish with malloc, and with a file of the disk's size for what is longer than 64 KiB.
    Varnish,
    /// Traffic Server: its storage on a tmpfs, or its RAM cache over its storage on the disk.
    TrafficServer,
    /// Squid with LRU, its default.
    Squid,
    /// Squid with heap GDSF in memory and on disk.
    SquidGdsf,
}

/// Our disk may be written so many times over in a day: a trace of days is replayed within minutes. So what is seen for the
/// first time is let in as long as the disk is not full, and hardly after that.
pub const DAILY_WRITES: u64 = 1000;

/// What a cache may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Bytes of memory. Ours is told so for the whole process, others for stored objects.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: Option<u64>,
}

impl Budget {
    /// Whether more than this was taken, by more than a tenth.
    pub fn is_exceeded(self, taken: Self) -> bool {
        let is_over = |may: u64, taken: u64| taken as f64 > may as f64 * (1.0 + TOLERANCE);
        is_over(self.memory, taken.memory)
            || self.disk.zip(taken.disk).is_some_and(|(may, taken)| is_over(may, taken))
    }

    /// What a cache is told next that was told `told` and took `taken`: in proportion less of what it took too much of, more of
    /// what it was told too little of. None: it takes what it may.
    pub fn next(self, told: Self, taken: Self) -> Option<Self> {
        let fit = |told: u64, may: u64, taken: u64| {
            let times = may as f64 / taken.max(1) as f64;
            let fits = 1.0 / (1.0 + TOLERANCE)..=1.0 / (1.0 - TOLERANCE);
            match fits.contains(&times) {
                true => told,
                false => ((told as f64 * times) as u64 >> 20 << 20).min(may),
            }
        };
        let disk = match (told.disk, self.disk, taken.disk) {
            (Some(told), Some(may), Some(taken)) => Some(fit(told, may, taken)),
            (told, ..) => told,
        };
        let next = Self { memory: fit(told.memory, self.memory, taken.memory), disk };
        (next != told).then_some(next)
    }
}

/// What a cache may take beyond what it was given, of that.
const TOLERANCE: f64 = 0.1;

/// Where a cache is to listen and to keep its files.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Its folder on the disk, absolute.
    pub dir: &'a Path,
    /// Its folder in memory.
    pub memory: &'a Path,
    /// Its address.
    pub address: SocketAddr,
    /// Another port, for what it needs one for.
    pub admin: SocketAddr,
    /// The origin.
    pub origin: SocketAddr,
    /// Folder of our own programs.
    pub programs: &'a Path,
}

impl Kind {
    /// All of them, ours first.
    pub const ALL: [Self; 6] = [
        Self::EdgeCache,
        Self::Nginx,
        Self::Varnish,
        Self::TrafficServer,
        Self::Squid,
        Self::SquidGdsf,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EdgeCache => "edge-cache",
            Self::Nginx => "nginx",
            Self::Varnish => "Varnish",
            Self::TrafficServer => "Traffic Server",
            Self::Squid => "Squid",
            Self::SquidGdsf => "Squid GDSF",
        }
    }

    /// The program of a peer and Debian's package of it.
    pub const fn needs(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::EdgeCache => None,
            Self::Nginx => Some(("nginx", "nginx")),
            Self::Varnish => Some(("varnishd", "varnish")),
            Self::TrafficServer => Some(("traffic_server", "trafficserver")),
            Self::Squid | Self::SquidGdsf => Some(("squid", "squid")),
        }
    }

    /// Writes its files and gives the command that runs it in the foreground.
    pub fn prepare(self, budget: Budget, place: &Place<'_>) -> anyhow::Result<Vec<String>> {
        make_dir(place.dir)?;
        match self {
            Self::EdgeCache => edge_cache(budget, place),
            Self::Nginx => nginx(budget, place),
            Self::Varnish => varnish(budget, place),
            Self::TrafficServer => traffic_server(budget, place),
            Self::Squid => squid(budget, place, "lru"),
            Self::SquidGdsf => squid(budget, place, "heap GDSF"),
        }
    }
}

/// Where a program is, in the folders of administrators, too.
pub fn find(program: &str) -> anyhow::Result<String> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found =
        folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists());
    let found = found.with_context(|| format!("there is no {program}"))?;
    Ok(found.display().to_string())
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// A folder that a program may write in after it has given up root's rights.
fn open_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    make_dir(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))
        .with_context(|| format!("cannot open {}", dir.display()))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark writes configurations")]
fn write(file: &Path, text: &str) -> anyhow::Result<String> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file.display().to_string())
}

fn command(program: &str, arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut all = vec![find(program)?];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Ok(all)
}

fn edge_cache(budget: Budget, place: &Place<'_>) -> anyhow::Result<Vec<String>> {
    let Place { dir, address, admin, origin, .. } = place;
    let disk = budget.disk.map_or_else(String::new, |size| {
        format!(
            "disk = {{ path = \"disk\", size = \"{size}B\", daily_writes = \"{}B\" }}\n",
            size * DAILY_WRITES
        )
    });
    let text = format!(
        "[datacenter.here]\nlocation = [50.0, 8.0]\n\n[edge.a]\ndatacenter = \"here\"\naddress = [\"127.0.0.1\"]\n\
         http = [\"{address}\"]\nadmin = \"{admin}\"\nworkers = 1\nmemory = \"{}B\"\n{disk}\n\
         [origin.o]\nservers = [{{ url = \"http://{origin}\" }}]\n\n[cache.c]\n\n\
         [site.s]\nhosts = [\"{HOST}\"]\nroutes = [{{ path = \"/*\", origin = \"o\", cache = \"c\" }}]\n",
        budget.memory
    );
    let file = write(&dir.join("m.toml"), &text)?;
    let program: PathBuf = place.programs.join("edge-cache");
    Ok([
        &program.display().to_string(),
        "--config",
        &file,
        "--node",
        "a",
        "--log-level",
        "warn",
        "serve",
    ]
    .map(str::to_owned)
    .to_vec())
}

fn nginx(budget: Budget, place: &Place<'_>) -> anyhow::Result<Vec<String>> {
    let Place { dir, address, origin, .. } = place;
    let (store, size) = match budget.disk {
        Some(disk) => (dir.join("store"), disk),
        None => (place.memory.join("store"), budget.memory),
    };
    make_dir(&store)?;
    let (dir, store) = (dir.display(), store.display());
    // Files of a cache that is full are removed in rounds of manager_files, each manager_sleep apart.
    let text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {dir}/pid;\nerror_log {dir}/error.log error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n access_log off;\n sendfile on;\n tcp_nopush on;\n keepalive_requests 1000000000;\n\
         client_body_temp_path {dir}/b;\n proxy_temp_path {dir}/p;\n fastcgi_temp_path {dir}/f;\n uwsgi_temp_path {dir}/u;\n scgi_temp_path {dir}/s;\n\
         proxy_cache_path {store} levels=1:2 keys_zone=k:64m max_size={size} inactive=7d use_temp_path=off \
         manager_files=1000 manager_sleep=10ms manager_threshold=500ms;\n\
         upstream o {{ server {origin}; keepalive 64; }}\n\
         server {{ listen {address}; server_name {HOST};\n location / {{ proxy_pass http://o; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_cache k; proxy_cache_lock on; }} }}\n}}\n"
    );
    // The cache manager is a process of its own: it needs a master.
    let text = text.replace("master_process off;\n", "user root;\n");
    let file = write(&place.dir.join("nginx.conf"), &text)?;
    command("nginx", &["-e", "stderr", "-c", &file])
}

fn varnish(budget: Budget, place: &Place<'_>) -> anyhow::Result<Vec<String>> {
    let Place { dir, address, origin, .. } = place;
    let choose = match budget.disk {
        Some(_) => {
            "if (std.integer(beresp.http.content-length, 0) > 65536) { set beresp.storage = storage.disk; } \
             else { set beresp.storage = storage.memory; }"
        }
        None => "",
    };
    let vcl = format!(
        "vcl 4.1;\nimport std;\nbackend o {{ .host = \"{}\"; .port = \"{}\"; }}\n\
         sub vcl_backend_response {{ set beresp.grace = 0s; set beresp.keep = 0s; {choose} }}\n",
        origin.ip(),
        origin.port()
    );
    let file = write(&dir.join("o.vcl"), &vcl)?;
    let (name, listen) = (dir.join("n").display().to_string(), address.to_string());
    let memory = format!("memory=malloc,{}", budget.memory);
    let mut all = command(
        "varnishd",
        &["-F", "-j", "none", "-n", &name, "-a", &listen, "-f", &file, "-T", "none", "-s", &memory],
    )?;
    if let Some(disk) = budget.disk {
        all.extend(["-s".to_owned(), format!("disk=file,{}/store,{disk}", dir.display())]);
    }
    // As shipped a large object may displace fifty small ones at most, and is not stored else.
    for parameter in ["nuke_limit=100000", "thread_pools=1", "workspace_backend=64k"] {
        all.extend(["-p".to_owned(), parameter.to_owned()]);
    }
    Ok(all)
}

fn traffic_server(budget: Budget, place: &Place<'_>) -> anyhow::Result<Vec<String>> {
    let Place { dir, address, origin, .. } = place;
    let (store, size, memory) = match budget.disk {
        Some(disk) => (dir.join("store"), disk, budget.memory),
        // What lies on a tmpfs needs no second copy in memory.
        None => (place.memory.join("store"), budget.memory, 1),
    };
    let etc = dir.join("etc");
    for folder in [&store, &etc, &dir.join("var/log"), &dir.join("var/run"), &dir.join("cache")] {
        open_dir(folder)?;
    }
    let root = dir.display();
    let layout = [
        ("prefix", "/usr"),
        ("exec_prefix", "/usr"),
        ("bindir", "/usr/bin"),
        ("sbindir", "/usr/sbin"),
        ("includedir", "/usr/include"),
        ("libdir", "/usr/lib/trafficserver"),
        ("libexecdir", "/usr/lib/trafficserver/modules"),
    ];
    let mut runroot: String = layout.iter().map(|(key, path)| format!("{key}: {path}\n")).collect();
    runroot += &format!(
        "sysconfdir: {root}/etc\ndatadir: {root}/cache\nlocalstatedir: {root}/var\nruntimedir: {root}/var/run\n\
         logdir: {root}/var/log\ncachedir: {root}/cache\n"
    );
    let records = format!(
        "CONFIG proxy.config.http.server_ports STRING {}:ip-in={}\n\
         CONFIG proxy.config.admin.user_id STRING #-1\n\
         CONFIG proxy.config.exec_thread.autoconfig INT 0\nCONFIG proxy.config.exec_thread.limit INT 1\n\
         CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600\n\
         CONFIG proxy.config.http.insert_response_via_str INT 0\n\
         CONFIG proxy.config.http.cache.required_headers INT 0\n\
         CONFIG proxy.config.cache.ram_cache.size INT {memory}\n\
         CONFIG proxy.config.cache.ram_cache_cutoff INT 67108864\n\
         CONFIG proxy.config.cache.min_average_object_size INT 8000\n\
         CONFIG proxy.config.log.logging_enabled INT 0\n\
         CONFIG proxy.config.diags.show_location INT 0\n",
        address.port(),
        address.ip(),
    );
    write(&etc.join("records.config"), &records)?;
    write(&etc.join("remap.config"), &format!("map / http://{origin}/\n"))?;
    write(&etc.join("storage.config"), &format!("{} {size}\n", store.display()))?;
    write(
        &etc.join("ip_allow.yaml"),
        "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n",
    )?;
    for empty in
        ["plugin.config", "cache.config", "hosting.config", "volume.config", "parent.config"]
    {
        write(&etc.join(empty), "")?;
    }
    let file = write(&dir.join("runroot.yaml"), &runroot)?;
    command("traffic_server", &[&format!("--run-root={file}")])
}

fn squid(budget: Budget, place: &Place<'_>, policy: &str) -> anyhow::Result<Vec<String>> {
    let Place { dir, address, origin, .. } = place;
    open_dir(dir)?;
    let root = dir.display();
    let disk = match budget.disk {
        Some(size) => {
            open_dir(&dir.join("store"))?;
            format!("cache_dir aufs {root}/store {} 16 256\n", size >> 20)
        }
        None => String::new(),
    };
    let text = format!(
        "http_port {address} accel defaultsite={HOST} no-vhost\n\
         cache_peer {} parent {} 0 no-query no-digest originserver name=o\n\
         acl all_of_it src all\nhttp_access allow all_of_it\nicp_access deny all\n\
         memory_replacement_policy {policy}\ncache_replacement_policy {policy}\n\
         maximum_object_size 1 GB\nmaximum_object_size_in_memory {} KB\ncache_mem {} MB\n{disk}\
         access_log none\ncache_log {root}/cache.log\ncache_store_log none\nlogfile_rotate 0\n\
         pid_filename {root}/squid.pid\ncoredump_dir {root}\nvisible_hostname here\nshutdown_lifetime 1 second\n\
         pinger_enable off\nnetdb_filename none\nbuffered_logs on\nforwarded_for off\nmax_filedescriptors 4096\n",
        origin.ip(),
        origin.port(),
        (budget.memory >> 13).max(512),
        budget.memory >> 20,
    );
    let file = write(&dir.join("squid.conf"), &text)?;
    match budget.disk {
        Some(_) => {
            // The folders of its store are made by a run of their own.
            let squid = find("squid")?;
            let script = format!("{squid} -z -N -f {file} && exec {squid} -N -f {file}");
            Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), script])
        }
        None => command("squid", &["-N", "-f", &file]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget(memory: u64, disk: Option<u64>) -> Budget {
        Budget { memory: memory * MIB, disk: disk.map(|disk| disk * MIB) }
    }

    #[test]
    fn who_takes_too_much_is_told_less_of_that() {
        let may = budget(100, Some(500));
        assert_eq!(may.next(may, budget(109, Some(549))), None);
        assert_eq!(may.next(may, budget(200, Some(500))), Some(budget(50, Some(500))));
        assert_eq!(may.next(may, budget(20, Some(1000))), Some(budget(100, Some(250))));
        let told = budget(50, Some(500));
        assert_eq!(may.next(told, budget(125, Some(500))), Some(budget(40, Some(500))));
        assert_eq!(may.next(told, budget(105, Some(500))), None);
        assert_eq!(may.next(told, budget(80, Some(500))), Some(budget(62, Some(500))));
        assert!(!may.is_exceeded(budget(109, Some(549))));
        assert!(may.is_exceeded(budget(111, Some(1))) && may.is_exceeded(budget(1, Some(551))));
        let may = budget(100, None);
        assert_eq!(may.next(may, budget(200, None)), Some(budget(50, None)));
    }
}
