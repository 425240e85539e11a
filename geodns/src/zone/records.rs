//! The records of a zone as its file lists them, packed: a million of them at load must not cost a gigabyte.

use std::sync::Arc;

use super::{Location, Problem};

/// Records of one zone, in the order of the file.
#[derive(Debug, Default)]
pub struct Records {
    /// Owner names in lower case, and RDATA.
    octets: Vec<u8>,
    records: Vec<Packed>,
    files: Vec<Arc<str>>,
}

/// Positions are in [`Records::octets`].
#[derive(Clone, Copy, Debug)]
struct Packed {
    owner_at: u32,
    rdata_at: u32,
    ttl: u32,
    line: u32,
    rtype: u16,
    rdata_length: u16,
    file: u16,
    owner_length: u8,
}

/// One resource record of class IN.
#[derive(Clone, Copy, Debug)]
pub struct Record<'r> {
    /// Owner name in lower-case wire form.
    pub owner: &'r [u8],
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA in wire form.
    pub rdata: &'r [u8],
    /// Where the owner's octets begin.
    pub(super) owner_at: u32,
}

impl Records {
    /// How many.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.records.iter().map(|packed| self.unpacked(packed))
    }

    pub(super) fn get(&self, index: u32) -> Option<Record<'_>> {
        self.records.get(index as usize).map(|packed| self.unpacked(packed))
    }

    /// Where a record stands.
    pub(super) fn location(&self, index: u32) -> Location {
        let packed = self.records.get(index as usize);
        let file = packed.and_then(|packed| self.files.get(usize::from(packed.file)));
        Location {
            file: file.map_or_else(|| "".into(), Arc::clone),
            line: packed.map_or(0, |packed| packed.line),
        }
    }

    pub(super) fn octets(&self, at: u32, length: u8) -> &[u8] {
        self.octets.get(at as usize..at as usize + usize::from(length)).unwrap_or(&[0])
    }

    /// The file that the next records are of.
    pub(super) fn open(&mut self, file: &Arc<str>) -> Result<u16, String> {
        let id = u16::try_from(self.files.len()).map_err(|_| "more than 65535 files".to_owned())?;
        self.files.push(Arc::clone(file));
        Ok(id)
    }

    /// Adds a record.
    pub(super) fn push(
        &mut self,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        rdata: &[u8],
        place: (u16, u32),
    ) -> Result<(), String> {
        let same_owner = self.records.last().copied().filter(|last| {
            self.octets(last.owner_at, last.owner_length).eq_ignore_ascii_case(owner)
        });
        let owner_at = match same_owner {
            Some(last) => last.owner_at,
            None => self.push_name(owner)?,
        };
        let rdata_at = self.position()?;
        self.octets.extend_from_slice(rdata);
        self.records.push(Packed {
            owner_at,
            rdata_at,
            ttl,
            line: place.1,
            rtype,
            rdata_length: u16::try_from(rdata.len()).map_err(|error| error.to_string())?,
            file: place.0,
            owner_length: u8::try_from(owner.len()).map_err(|error| error.to_string())?,
        });
        Ok(())
    }

    /// Adds a name that may have no records, in lower case.
    pub(super) fn push_name(&mut self, name: &[u8]) -> Result<u32, String> {
        let at = self.position()?;
        self.octets.extend(name.iter().map(u8::to_ascii_lowercase));
        Ok(at)
    }

    fn position(&self) -> Result<u32, String> {
        u32::try_from(self.octets.len())
            .map_err(|_| "the zone has more than 4 GiB of names and data".to_owned())
    }

    fn unpacked(&self, packed: &Packed) -> Record<'_> {
        let rdata_at = packed.rdata_at as usize;
        let rdata = self.octets.get(rdata_at..rdata_at + usize::from(packed.rdata_length));
        Record {
            owner: self.octets(packed.owner_at, packed.owner_length),
            rtype: packed.rtype,
            ttl: packed.ttl,
            rdata: rdata.unwrap_or_default(),
            owner_at: packed.owner_at,
        }
    }

    pub(super) fn error(&self, index: u32, why: impl Into<String>) -> Problem {
        Problem::error(&self.location(index), why)
    }

    pub(super) fn warning(&self, index: u32, why: impl Into<String>) -> Problem {
        Problem::warning(&self.location(index), why)
    }
}
