//! Purges that outlast their node: written down, read again, begun anew when that fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::io::purge::purge;
use crate::purge::{Floor, Kind, Position, Record, Tags, Target, Verdict};
use shared::io::clock;

fn target(n: usize) -> Target {
    Target::Tag(format!("t{n}").into())
}

fn node(folder: &Path) -> TestNode {
    start("edge-1", &format!("state = \"{}\"", folder.display()), &site(&nowhere(), "", ""))
}

fn nowhere() -> String {
    server(SocketAddr::from(([127, 0, 0, 1], 9)))
}

/// Ends the node and waits until its folder is free.
async fn end(mut node: TestNode, folder: &Path) {
    node.node.settle().await;
    node.node.stop();
    let workers = node.workers.take().unwrap();
    tokio::task::spawn_blocking(|| workers.join()).await.unwrap();
    drop(node);
    let lock = fs::File::options().write(true).open(folder.join("purges.lock")).unwrap();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while lock.try_lock().is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the folder is never free");
        tokio::task::yield_now().await;
    }
}

async fn give(node: &TestNode, n: usize) -> Record {
    purge(&node.node, &[target(n)], Kind::Hard, None).await.unwrap()
}

fn floor(node: &TestNode, n: usize) -> Floor {
    let mut headers = http::HeaderMap::new();
    headers.insert("cache-tag", http::HeaderValue::try_from(format!("t{n}")).unwrap());
    let fields = [http::HeaderName::from_static("cache-tag")];
    node.node.store.fences().of_tags(&Tags::of(&headers, &fields, ""))
}

#[tokio::test]
async fn a_node_that_starts_knows_the_purges_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deep/er");
    let first = node(&folder);
    let hard = give(&first, 1).await;
    let soft = purge(&first.node, &[target(2)], Kind::Soft, None).await.unwrap();
    let last = first.node.positions.current();
    // An identity that lasts, and fences that are not above what is written down.
    let identity = first.node.purge_log.as_ref().unwrap().identity();
    let log = first.node.purge_log.as_ref().unwrap();
    assert_eq!(log.lasting().position(), last);
    end(first, &folder).await;

    let second = node(&folder);
    let mut known = second.node.ledger.lock().unwrap().find(&hard.id).unwrap().clone();
    known.entry = hard.entry;
    assert_eq!(known, hard);
    assert_eq!((floor(&second, 1).hard, floor(&second, 2).soft), (hard.position, soft.position));
    assert_eq!(floor(&second, 3), Floor::default());
    assert_eq!(second.node.positions.current(), last);
    assert_eq!(second.node.purge_log.as_ref().unwrap().identity(), identity);
    // Given again with its position: the same one.
    let again = purge(&second.node, &[target(1)], Kind::Hard, Some(hard.position)).await.unwrap();
    assert_eq!((again.id, again.position), (hard.id, hard.position));
    // Positions that were only heard of are written down, too.
    let heard = Position(last.0 + 1_000_000);
    second.node.positions.observe(heard);
    let log = second.node.purge_log.as_ref().unwrap();
    second.until("what was heard of is durable", |_| log.lasting().position() == heard).await;
    end(second, &folder).await;
    let third = node(&folder);
    assert_eq!(third.node.positions.current(), heard);
    end(third, &folder).await;
}

#[tokio::test]
async fn purges_share_what_makes_them_durable() {
    const PURGES: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    let started = clock::instant();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..PURGES {
        let node = Arc::clone(&first.node);
        tasks.spawn(async move { purge(&node, &[target(n)], Kind::Hard, None).await.unwrap() });
    }
    let records = tasks.join_all().await;
    eprintln!("{PURGES} purges in {:?}", started.elapsed());
    end(first, dir.path()).await;
    let second = node(dir.path());
    for n in 0..PURGES {
        assert!(floor(&second, n).hard > Position(0), "{n} is forgotten");
    }
    assert_eq!(second.node.positions.current(), records.iter().map(|r| r.position).max().unwrap());
    end(second, dir.path()).await;
}

#[tokio::test]
async fn a_log_is_begun_anew_before_it_is_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    // Some four times what it may grow by.
    let many: Vec<Target> = (0..10_000).map(target).collect();
    let mut most = 0;
    for _ in 0..200 {
        purge(&first.node, &many, Kind::Hard, None).await.unwrap();
        most = most.max(fs::metadata(dir.path().join("purges.log")).unwrap().len());
    }
    assert!(most > 4 << 20 && most < 6 << 20, "{most}");
    let last = give(&first, 77).await;
    end(first, dir.path()).await;
    let second = node(dir.path());
    assert_eq!(floor(&second, 77).hard, last.position);
    end(second, dir.path()).await;
}

/// Where the log cannot be begun anew, purges are in force and not acknowledged; when it can, all of them are durable.
#[tokio::test]
async fn what_cannot_be_written_down_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let first = node(dir.path());
    let kept = give(&first, 1).await;
    // A folder in the way of the file that it would be begun anew as, and a log that is to be begun anew.
    let beside = dir.path().join("purges.log.new");
    fs::create_dir(&beside).unwrap();
    let many: Vec<Target> = (0..400_000).map(target).collect();
    let first_failure = loop {
        match purge(&first.node, &many, Kind::Hard, None).await {
            Ok(_) => {}
            Err(why) => break why,
        }
    };
    assert!(
        first_failure.contains("in force") && first_failure.contains("directory"),
        "{first_failure}"
    );
    let wanted = Position(clock::now().0 * 1000 + 1);
    let failed = purge(&first.node, &[target(2)], Kind::Hard, Some(wanted)).await;
    assert!(failed.is_err());
    assert_eq!(first.node.telemetry.purges_not_kept.get(), 2);
    let in_force = floor(&first, 2).hard;
    assert!(in_force >= wanted);
    let id = crate::purge::Ledger::id(wanted, Kind::Hard, &[target(2)]);
    assert_eq!(crate::io::purge::get(&first.node, &id).status, 404);
    fs::remove_dir(&beside).unwrap();
    let again = purge(&first.node, &[target(2)], Kind::Hard, Some(wanted)).await.unwrap();
    assert_eq!(again.id, id);
    assert_eq!(crate::io::purge::get(&first.node, &id).status, 200);
    end(first, dir.path()).await;
    let second = node(dir.path());
    assert_eq!(floor(&second, 2).hard, in_force);
    assert!(floor(&second, 1).hard >= kept.position);
    end(second, dir.path()).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("purges.log");
    let first = node(dir.path());
    give(&first, 1).await;
    give(&first, 2).await;
    let middle = fs::metadata(&path).unwrap().len() - 10;
    let last = give(&first, 3).await;
    let identity = first.node.purge_log.as_ref().unwrap().identity();
    end(first, dir.path()).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[middle as usize] ^= 4;
    fs::write(&path, &bytes).unwrap();

    let second = node(dir.path());
    let key = crate::key::CacheKey::of_url("http://www.test/", &crate::key::KeyRules::default());
    let judge = |node: &TestNode, fence: u64| {
        let (tags, needed) = (Tags::default(), Floor::default());
        node.node.store.fences().judge(key.as_ref().unwrap().url(), &tags, Position(fence), needed)
    };
    assert_eq!(judge(&second, 1), Verdict::Purged);
    assert_eq!(judge(&second, last.position.0), Verdict::Current);
    assert_eq!(second.node.purge_log.as_ref().unwrap().identity(), identity);
    assert_eq!(fs::read(dir.path().join("purges.damaged")).unwrap(), bytes);
    end(second, dir.path()).await;

    // Cut in its beginning: another log, above all that it ever was.
    fs::write(&path, &bytes[..15]).unwrap();
    let third = node(dir.path());
    assert_eq!(judge(&third, last.position.0), Verdict::Purged);
    assert!(third.node.positions.current() > last.position);
    assert_ne!(third.node.purge_log.as_ref().unwrap().identity(), identity);
    let now = third.node.positions.current().0;
    end(third, dir.path()).await;
    // What was purged in its place stays so.
    let fourth = node(dir.path());
    assert_eq!(judge(&fourth, now - 1), Verdict::Purged);
    assert_eq!(judge(&fourth, now), Verdict::Current);
    end(fourth, dir.path()).await;
}

#[tokio::test]
async fn a_folder_is_one_nodes_and_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |extra: &str| {
        let text = format!(
            "[datacenter.icn]\nlocation = [37.0, 126.0]\n[edge.e]\ndatacenter = \"icn\"\naddress = [\"127.0.0.1\"]\n\
             http = [\"127.0.0.1:1\"]\nadmin = \"127.0.0.1:3\"\n{extra}"
        );
        let loaded = shared::config::load(Path::new("test.toml"), &Text(text)).unwrap();
        let plan = Plan::new(&loaded, Some("e")).unwrap();
        Node::new(Source { path: PathBuf::new(), node: None }, plan).map(drop).unwrap_err()
    };
    let state = |path: &Path| format!("state = \"{}\"", path.display());
    let first = node(dir.path());
    let taken = refused(&state(dir.path()));
    assert!(taken.contains("another node keeps its purges in"), "{taken}");
    end(first, dir.path()).await;
    let file = dir.path().join("purges.log");
    let under = refused(&state(&file.join("x")));
    assert!(under.contains("cannot make the folder") && under.contains("`state`"), "{under}");
    let disk = format!("disk = {{ path = \"{}\", size = \"16MiB\" }}", file.display());
    assert!(refused(&disk).contains("is a file: name a folder"));
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    // A privileged user may write all the same.
    if fs::write(closed.join("probe"), "").is_err() {
        assert!(refused(&state(&closed)).contains("cannot write into"));
    }
}
