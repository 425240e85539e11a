//! Opening a disk: the file is made and locked, its superblock read and judged.

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use shared::config::Mismatch;

use super::device::{Device, FileDevice};
use super::snapshot;
use crate::store::disk::Geometry;
use crate::store::disk::format::{Found, SUPERBLOCK, Superblock, VERSION, Void};
use crate::store::disk::geometry::{DATA_START, MIN_SIZE, SUPERBLOCKS};

/// The file in the folder that a disk's configuration names.
pub(crate) const FILE: &str = "meridian.store";
/// What holds no store is blank if so much of its beginning is.
const LOOKED_AT: u64 = 1 << 20;

/// What an operator says of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// A folder, or a block device.
    pub path: PathBuf,
    /// Bytes of it that are used.
    pub size: u64,
    /// Bytes written to it in a day at most, on the average. None: three times `size`.
    pub daily_writes: Option<u64>,
    /// What becomes of a store that cannot be read as it is.
    pub mismatch: Mismatch,
}

/// Why a disk cannot be used; for its operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made, read or written.
    #[error("{path}: {doing}: {error}")]
    Io {
        /// Of what.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        error: io::Error,
    },
    /// Another process has it.
    #[error("{path}: another process uses this store; each node needs its own")]
    Locked {
        /// Of what.
        path: PathBuf,
    },
    /// The size is too small.
    #[error("{path}: a disk of {size} bytes is too small: {MIN_SIZE} is the least")]
    TooSmall {
        /// Of what.
        path: PathBuf,
        /// What the configuration says.
        size: u64,
    },
    /// The device is smaller than the configuration says.
    #[error("{path}: the device has {has} bytes, and the configuration says {size}")]
    DeviceTooSmall {
        /// Of what.
        path: PathBuf,
        /// What it has.
        has: u64,
        /// What the configuration says.
        size: u64,
    },
    /// It holds something else.
    #[error(
        "{path}: it holds data that is not a store's, which is not overwritten; if it can be lost, {}",
        if *is_device { "erase its first MiB (dd if=/dev/zero bs=1M count=1 of=DEVICE)" } else { "remove the file" }
    )]
    Foreign {
        /// What does.
        path: PathBuf,
        /// It is no file.
        is_device: bool,
    },
    /// A file, or something that nothing can be stored on.
    #[error(
        "{path}: neither a folder nor a block device: name a folder, in which the store's file is made"
    )]
    NoFolder {
        /// What is not.
        path: PathBuf,
    },
    /// Another format, and the operator wants it kept.
    #[error(
        "{path}: the store has format {found}, this version reads format {VERSION}; `mismatch = \"rebuild\"` empties it"
    )]
    Version {
        /// Of what.
        path: PathBuf,
        /// The file's.
        found: u32,
    },
    /// Another size, and the operator wants it kept.
    #[error(
        "{path}: the store has {found} bytes, the configuration's `size` makes {wanted}; `mismatch = \"rebuild\"` empties it \
         of {holds}"
    )]
    Size {
        /// Of what.
        path: PathBuf,
        /// What would be lost.
        holds: Holds,
        /// The file's.
        found: u64,
        /// The configuration's.
        wanted: u64,
    },
    /// Other key rules, and the operator wants it kept.
    #[error(
        "{path}: the store was written with key rules, or beside a log of purges, {found:016x}; now they are {wanted:016x}; \
         `mismatch = \"rebuild\"` empties it of {holds}"
    )]
    KeyRules {
        /// Of what.
        path: PathBuf,
        /// What would be lost.
        holds: Holds,
        /// The file's.
        found: u64,
        /// The configuration's.
        wanted: u64,
    },
}

/// What a store holds; all zero: that is not known, for it was not stopped cleanly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Objects, segments of bodies and the variants of keys.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl std::fmt::Display for Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { records: 0, .. } => f.write_str("all that it holds"),
            Self { records, bytes } => {
                write!(f, "{records} records of {:.1} MiB", *bytes as f64 / 1_048_576.0)
            }
        }
    }
}

/// Why a store begins empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// There was none.
    New,
    /// Both superblocks are damaged.
    Damaged,
    /// It had failed, and been left alone.
    Failed,
    /// Purges were in force that could not be written down before the node ended.
    Doubt,
    /// It has another format.
    Version,
    /// It was written with other key rules.
    KeyRules,
    /// The configuration gives it another size.
    Size,
    /// It was absent while the node's other disks were in use: what it holds may have been replaced since.
    Absent,
}

/// A device whose superblock has been judged.
#[derive(Debug)]
pub struct Opened {
    /// Who it is to messages.
    pub path: PathBuf,
    /// The device.
    pub device: Arc<dyn Device>,
    /// What it says of itself; of an emptied one, what it is going to say.
    pub superblock: Superblock,
    /// Why it begins empty, if it does.
    pub emptied: Option<Emptied>,
}

impl Opened {
    /// A device of this geometry, whatever it has been.
    pub fn new(
        path: PathBuf,
        device: Arc<dyn Device>,
        geometry: Geometry,
        key_rules: u64,
        mismatch: Mismatch,
    ) -> Result<Self, OpenError> {
        let found = superblocks(&*device).map_err(|error| {
            let doing = "its beginning cannot be read";
            OpenError::Io { path: path.clone(), doing, error }
        })?;
        Ok(judge(path, (&*device, true), &found, geometry, key_rules, mismatch)?.on(device))
    }

    /// What it holds is not used.
    pub(super) fn empty(&mut self, why: Emptied) {
        if let Some(geometry) = self.superblock.geometry() {
            self.superblock = fresh(geometry, self.superblock.key_rules, self.superblock.run);
        }
        self.emptied = Some(why);
    }
}

/// Opens what a configuration names.
pub(super) fn open(config: &DiskConfig, key_rules: u64) -> Result<Opened, OpenError> {
    let io = |doing: &'static str, path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| OpenError::Io { path, doing, error }
    };
    let path = &config.path;
    let kind = path.metadata().map(|found| found.file_type());
    let is_device = kind.as_ref().is_ok_and(|kind| kind.is_block_device());
    if kind.is_ok_and(|kind| !kind.is_dir() && !is_device) {
        return Err(OpenError::NoFolder { path: path.clone() });
    }
    let path = if is_device {
        path.clone()
    } else {
        std::fs::create_dir_all(path).map_err(io("the folder cannot be made", path))?;
        path.join(FILE)
    };
    let opened = OpenOptions::new().read(true).write(true).create(!is_device).open(&path);
    let mut file = opened.map_err(io("it cannot be opened for reading and writing", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { path }),
        Err(TryLockError::Error(error)) => return Err(io("it cannot be locked", &path)(error)),
    }
    let has = file.seek(SeekFrom::End(0)).map_err(io("its size cannot be told", &path))?;
    let Some(geometry) = Geometry::new(config.size) else {
        return Err(OpenError::TooSmall { path, size: config.size });
    };
    if is_device && has < config.size {
        return Err(OpenError::DeviceTooSmall { path, has, size: config.size });
    }
    let device = FileDevice::new(file);
    let found = superblocks_of(&device, has).map_err(io("its beginning cannot be read", &path))?;
    let judged = judge(path, (&device, is_device), &found, geometry, key_rules, config.mismatch)?;
    if let Judged { emptied: Some(why @ (Emptied::KeyRules | Emptied::Size)), holds, .. } = &judged
    {
        let path = judged.path.display();
        tracing::warn!(%path, ?why, "a store does not fit the configuration any more: it loses {holds}");
    }
    if !is_device {
        // Not before it is known that nothing is lost by it.
        allocate(device.file(), geometry.size)
            .map_err(io("room for it cannot be taken (is the file system full?)", &judged.path))?;
    }
    Ok(judged.on(Arc::new(device)))
}

/// What stands against a store as it is, without changing or locking anything: an error of [`open`] with `mismatch` set to
/// refuse. What is not there, or cannot be read, is not judged.
pub(crate) fn look(config: &DiskConfig, key_rules: u64) -> Option<OpenError> {
    let is_device = !config.path.is_dir();
    let path = if is_device { config.path.clone() } else { config.path.join(FILE) };
    let mut file = File::open(&path).ok()?;
    let has = file.seek(SeekFrom::End(0)).ok().filter(|has| *has > 0)?;
    let geometry = Geometry::new(config.size)?;
    let device = FileDevice::new(file);
    let found = superblocks_of(&device, has).ok()?;
    judge(path, (&device, is_device), &found, geometry, key_rules, Mismatch::Refuse).err()
}

/// What lies where superblocks should, of a file or device that has so many bytes. It is blank only if it is so for longer than a superblock: file
/// systems begin with zeros, too.
fn superblocks_of(device: &FileDevice, has: u64) -> io::Result<[Found; 2]> {
    let found = match has {
        0..DATA_START => [Found::Blank; 2],
        _ => superblocks(device)?,
    };
    if found != [Found::Blank; 2] {
        return Ok(found);
    }
    let mut first = vec![0; has.min(LOOKED_AT) as usize];
    device.read(&mut first, 0)?;
    let is_blank = first.iter().all(|byte| *byte == 0);
    Ok(if is_blank { found } else { [Found::Foreign; 2] })
}

/// A file's blocks are taken at once, so that a full file system shows now and not later.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if file.metadata()?.len() >= size => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(size)?,
        Err(error) => return Err(error.into()),
    }
    // What a larger one had behind this is given back.
    if file.metadata()?.len() > size { file.set_len(size) } else { Ok(()) }
}

/// What lies where superblocks should. One that cannot be read counts as damaged, unless neither can.
pub(super) fn superblocks(device: &dyn Device) -> io::Result<[Found; 2]> {
    let read = |offset| {
        let mut bytes = vec![0; SUPERBLOCK];
        device.read(&mut bytes, offset).map(|()| Superblock::decode(&bytes))
    };
    match SUPERBLOCKS.map(read) {
        [Err(error), Err(_)] => Err(error),
        found => Ok(found.map(|found| found.unwrap_or(Found::Foreign))),
    }
}

/// What is to be made of it.
pub(super) fn judge(
    path: PathBuf,
    (device, is_device): (&dyn Device, bool),
    found: &[Found; 2],
    geometry: Geometry,
    key_rules: u64,
    mismatch: Mismatch,
) -> Result<Judged, OpenError> {
    let newest = found.iter().filter_map(|found| match found {
        Found::Superblock(superblock) => Some(*superblock),
        _ => None,
    });
    let newest = newest.max_by_key(|superblock| superblock.run);
    let version = found.iter().find_map(|found| match found {
        Found::Version(version) => Some(*version),
        _ => None,
    });
    let is_kept = mismatch == Mismatch::Refuse;
    let holds = newest.and_then(|newest| snapshot::holds(device, &newest)).unwrap_or_default();
    let emptied = match (newest, version) {
        (Some(known), _) if known.key_rules != key_rules => {
            if is_kept {
                let (found, wanted) = (known.key_rules, key_rules);
                return Err(OpenError::KeyRules { path, holds, found, wanted });
            }
            Some(Emptied::KeyRules)
        }
        (Some(Superblock { void: Some(why), .. }), _) => Some(match why {
            Void::Failed => Emptied::Failed,
            Void::Doubt => Emptied::Doubt,
        }),
        (Some(known), _) if known.geometry() != Some(geometry) => {
            if is_kept {
                let (found, wanted) = (known.size, geometry.size);
                return Err(OpenError::Size { path, holds, found, wanted });
            }
            Some(Emptied::Size)
        }
        (Some(_), _) => None,
        (None, Some(found)) => {
            if is_kept {
                return Err(OpenError::Version { path, found });
            }
            Some(Emptied::Version)
        }
        (None, None) if *found == [Found::Blank; 2] => Some(Emptied::New),
        (None, None) if found.contains(&Found::Damaged) => Some(Emptied::Damaged),
        (None, None) => return Err(OpenError::Foreign { path, is_device }),
    };
    let superblock = match (newest, emptied) {
        (Some(known), None) => known,
        _ => fresh(geometry, key_rules, newest.map_or(0, |known| known.run)),
    };
    Ok(Judged { path, superblock, emptied, holds })
}

/// What has been made of a superblock.
#[derive(Debug)]
pub(super) struct Judged {
    path: PathBuf,
    superblock: Superblock,
    emptied: Option<Emptied>,
    /// What it held.
    holds: Holds,
}

impl Judged {
    /// With its device.
    fn on(self, device: Arc<dyn Device>) -> Opened {
        let Self { path, superblock, emptied, .. } = self;
        Opened { path, device, superblock, emptied }
    }
}

/// A superblock of a store that is empty. Its salt is new: what lies in the segments is nobody's.
pub(super) fn fresh(geometry: Geometry, key_rules: u64, run: u64) -> Superblock {
    let uuid = u128::from(random()) << 64 | u128::from(random());
    let (size, segment) = (geometry.size, geometry.segment);
    let salt = random();
    Superblock { uuid, salt, run, key_rules, size, segment, is_clean: false, void: None }
}

/// Writes both copies; when it returns they are on the disk.
pub(super) fn write_superblock(device: &dyn Device, superblock: &Superblock) -> io::Result<()> {
    let bytes = superblock.encode();
    for offset in SUPERBLOCKS {
        device.write(&bytes, offset)?;
        device.sync()?;
    }
    Ok(())
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}
