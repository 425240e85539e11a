//! Request streams like those of a CDN: five classes of content, byte-identical on every machine.
//!
//! | class | one-hit objects | median size | what it is |
//! |---|---|---|---|
//! | `web-us`, `web-eu` | 66 to 68 % | 10 to 13 KB | pages, scripts, styles, pictures, a tail of megabytes |
//! | `images` | 77 % | 9 KB | pictures |
//! | `video` | 56 % | 0.5 MB | segments of 30 KB, 1 MB and 10 MB |
//! | `downloads` | 18 % | 1.2 MB | chunks of large files |
//!
//! How often an object is asked for and how large it is comes from [`table`]. *When* it is asked for is modelled: of the
//! objects with two or more requests a share lives for a while only (from 1 to 100 % of the trace, the logarithm of the
//! time evenly spread), with an interest that halves again and again; all others are asked for at any time. Objects with
//! one request come at any time. The clock runs faster by day than by night. A crawl, where one is asked for, comes in
//! bursts of objects that nobody asks for again.
//!
//! All numbers are integers of a fixed seed; the same call gives the same bytes everywhere.

pub mod fixed;
pub mod table;

mod generate;

use table::{Bands, Popularity};

pub use generate::Trace;

/// The numbers of objects that only a crawler asks for have this bit.
pub const CRAWLED: u64 = 1 << 63;

/// A class of content.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    /// Its name in tables and files.
    pub name: &'static str,
    /// How many objects a full trace has.
    pub objects: u64,
    popularity: Popularity,
    sizes: Bands,
    /// Thousandths of the objects with two or more requests that live for a while only.
    churn: u64,
    /// How long it takes, as hours of the day go by.
    days: u64,
    /// Lifetimes in seconds and the hundredths of the objects that have them.
    ttl: &'static [(u32, u64)],
    seed: u64,
}

/// How many times the interest in an object that lives for a while halves in its time.
const HALVINGS: u64 = 3;

const STATIC_TTL: &[(u32, u64)] = &[(60, 5), (300, 10), (3_600, 25), (86_400, 40), (604_800, 20)];
const LONG_TTL: &[(u32, u64)] = &[(3_600, 10), (86_400, 30), (604_800, 60)];

/// All classes, the one of the goals first.
pub const CLASSES: [Class; 5] = [
    Class {
        name: "web-us",
        objects: 240_000,
        popularity: table::WEB_US,
        sizes: table::WEB_US_SIZES,
        churn: 600,
        days: 2,
        ttl: STATIC_TTL,
        seed: 2_025_001,
    },
    Class {
        name: "web-eu",
        objects: 240_000,
        popularity: table::WEB_EU,
        sizes: table::WEB_EU_SIZES,
        churn: 600,
        days: 2,
        ttl: STATIC_TTL,
        seed: 2_025_002,
    },
    Class {
        name: "images",
        objects: 600_000,
        popularity: table::IMAGES,
        sizes: table::IMAGES_SIZES,
        churn: 600,
        days: 2,
        ttl: LONG_TTL,
        seed: 2_018_001,
    },
    Class {
        name: "video",
        objects: 500_000,
        popularity: table::VIDEO,
        sizes: table::VIDEO_SIZES,
        churn: 650,
        days: 2,
        ttl: LONG_TTL,
        seed: 2_019_001,
    },
    Class {
        name: "downloads",
        objects: 150_000,
        popularity: table::DOWNLOADS,
        sizes: table::DOWNLOADS_SIZES,
        churn: 520,
        days: 2,
        ttl: LONG_TTL,
        seed: 2_025_003,
    },
];

impl Class {
    /// The class of this name.
    pub fn named(name: &str) -> Option<Self> {
        CLASSES.into_iter().find(|class| class.name == name)
    }
}
