//! What an operator may have done to a disk between two starts.

use super::*;

fn config(path: &Path) -> DiskConfig {
    DiskConfig {
        path: path.to_owned(),
        size: 16 * MIB,
        daily_writes: None,
        mismatch: Mismatch::Refuse,
    }
}

async fn filled(config: &DiskConfig) {
    let disks = Disks::open(std::slice::from_ref(config), 1).unwrap();
    ready(&disks);
    assert!(put(&disks, 1, b"meta", 1000) && disks.flush().await);
    disks.close().await;
}

async fn start_of(config: &DiskConfig, key_rules: u64) -> Start {
    let disks = Disks::open(std::slice::from_ref(config), key_rules).unwrap();
    ready(&disks);
    assert_eq!(disks.contains(place(1)), matches!(disks.stats()[0].start, Some((Start::Copy, _))));
    let start = disks.stats()[0].start.unwrap().0;
    disks.close().await;
    start
}

#[tokio::test]
async fn other_key_rules_are_refused_or_begin_anew_as_the_operator_said() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    filled(&config).await;
    let error = Disks::open(std::slice::from_ref(&config), 2).unwrap_err().to_string();
    assert!(error.contains(" 0000000000000001;") && error.contains("rebuild"), "{error}");
    assert_eq!(start_of(&config, 1).await, Start::Copy, "nothing has happened to it");
    let rebuilt = DiskConfig { mismatch: Mismatch::Rebuild, ..config };
    assert_eq!(start_of(&rebuilt, 2).await, Start::Empty(Emptied::KeyRules));
    assert_eq!(start_of(&rebuilt, 1).await, Start::Empty(Emptied::KeyRules));
}

#[tokio::test]
async fn another_format_is_refused_or_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    filled(&config).await;
    let file = folder.path().join("meridian.store");
    let mut bytes = std::fs::read(&file).unwrap();
    for at in crate::store::disk::geometry::SUPERBLOCKS {
        bytes[at as usize + 8] = 9;
    }
    std::fs::write(&file, &bytes).unwrap();
    let error = Disks::open(std::slice::from_ref(&config), 1).unwrap_err().to_string();
    assert!(error.contains("format 9") && error.contains("reads format 1"), "{error}");
    let rebuilt = DiskConfig { mismatch: Mismatch::Rebuild, ..config };
    assert_eq!(start_of(&rebuilt, 1).await, Start::Empty(Emptied::Version));
}

#[tokio::test]
async fn a_damaged_superblock_is_replaced_by_its_copy_and_two_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    filled(&config).await;
    let file = folder.path().join("meridian.store");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(start_of(&config, 1).await, Start::Copy);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20] ^= 1;
    bytes[(32 << 10) + 40] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(start_of(&config, 1).await, Start::Empty(Emptied::Damaged));
}

#[tokio::test]
async fn another_size_begins_anew_and_the_file_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    filled(&config).await;
    assert_eq!(start_of(&config, 1).await, Start::Copy);
    for size in [24 * MIB, 17 * MIB] {
        let kept = DiskConfig { size, ..config.clone() };
        let error = Disks::open(&[kept], 1).unwrap_err();
        assert!(matches!(error, OpenError::Size { wanted, .. } if wanted == size), "{error}");
        let other = DiskConfig { size, mismatch: Mismatch::Rebuild, ..config.clone() };
        assert_eq!(start_of(&other, 1).await, Start::Empty(Emptied::Size));
        assert_eq!(folder.path().join("meridian.store").metadata().unwrap().len(), size);
    }
    let small = DiskConfig { size: MIB, ..config.clone() };
    let error = Disks::open(&[small], 1).unwrap_err();
    assert!(matches!(error, OpenError::TooSmall { size: MIB, .. }), "{error}");
}

#[tokio::test]
async fn a_file_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let disks = Disks::open(std::slice::from_ref(&config), 1).unwrap();
    let error = Disks::open(std::slice::from_ref(&config), 1).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    disks.stop();
    assert_eq!(start_of(&config, 1).await, Start::Segments, "a lock ends with who has it");
}

#[tokio::test]
async fn a_folder_that_cannot_be_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = Disks::open(&[config(&file.join("below"))], 1).unwrap_err().to_string();
    assert!(error.contains("file/below") && error.contains("folder"), "{error}");
}
