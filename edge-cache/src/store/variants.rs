//! The variants of a key whose responses have Vary: the lists, and which variants are stored.

use http::HeaderMap;
use xxhash_rust::xxh3::xxh3_128;

use super::object::ObjectKey;
use crate::semantics::vary::{VariantKey, VaryLists};

/// The variants of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variants {
    /// Its Vary lists.
    pub lists: VaryLists,
    /// What is stored, oldest first. Nothing else of the key is found, wherever it lies.
    pub stored: Vec<VariantKey>,
}

impl Variants {
    /// Those stored that a request may select, newest list first.
    pub fn selected(&self, request: &HeaderMap) -> impl Iterator<Item = VariantKey> {
        self.lists.variants(request).filter(|variant| self.stored.contains(variant))
    }

    /// Where the record of a key lies on disk.
    pub fn place(key: u128) -> ObjectKey {
        ObjectKey { key, variant: VariantKey(xxh3_128(b"the variants of this key")) }
    }
}
