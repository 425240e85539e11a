//! Makes the bytes of a content coding. The same bytes come of the same body on every node of one version: the tags of
//! encodings are strong validators.

use std::io::{self, Write};

use flate2::GzBuilder;
use zstd::zstd_safe::CParameter;

use crate::semantics::compress::Coding;

/// Done once per object: more time than a server takes that compresses each response, less than what would make the next
/// object wait long.
const GZIP_LEVEL: u32 = 6;
const BR_QUALITY: u32 = 7;
/// Four megabytes, as browsers take it.
const BR_WINDOW: u32 = 22;
const ZSTD_LEVEL: i32 = 12;
/// RFC 9659: no window of more than eight megabytes.
const ZSTD_WINDOW_LOG: u32 = 23;
const BUFFER: usize = 64 << 10;

/// A body in a coding.
///
/// # Errors
/// The library failed.
pub fn encode(coding: Coding, body: &[impl AsRef<[u8]>]) -> io::Result<Vec<u8>> {
    // In one piece: what comes of several depends on where they end.
    let body: Vec<u8> = body.iter().map(AsRef::as_ref).collect::<Vec<_>>().concat();
    let made = Vec::with_capacity(body.len() / 3);
    match coding {
        Coding::Gzip => {
            // No name and no time in it.
            let level = flate2::Compression::new(GZIP_LEVEL);
            let mut encoder = GzBuilder::new().mtime(0).write(made, level);
            encoder.write_all(&body)?;
            encoder.finish()
        }
        Coding::Br => {
            let mut encoder = brotli::CompressorWriter::new(made, BUFFER, BR_QUALITY, BR_WINDOW);
            encoder.write_all(&body)?;
            encoder.flush()?;
            Ok(encoder.into_inner())
        }
        Coding::Zstd => {
            let mut encoder = zstd::Encoder::new(made, ZSTD_LEVEL)?;
            encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG))?;
            encoder.include_checksum(true)?;
            encoder.write_all(&body)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut decoded).unwrap(),
            Coding::Br => {
                brotli::Decompressor::new(bytes, BUFFER).read_to_end(&mut decoded).unwrap()
            }
            Coding::Zstd => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut decoded).unwrap(),
        };
        decoded
    }

    fn text() -> Vec<u8> {
        (0..20_000u32)
            .flat_map(|n| format!("{} line\n", n.wrapping_mul(2_654_435_761)).into_bytes())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_encoded_can_be_decoded(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..6)) {
            for coding in Coding::ALL {
                prop_assert_eq!(decode(coding, &encode(coding, &pieces).unwrap()), pieces.concat());
            }
        }
    }

    /// Where a piece ends makes no difference, and the bytes are those of the last version. If a library makes others
    /// now, two nodes give one tag to different bytes while they are updated: [`crate::semantics::compress`] has to give
    /// out other tags then.
    #[test]
    fn the_same_body_has_the_same_bytes() {
        let text = text();
        let pieces: Vec<&[u8]> = text.chunks(1777).collect();
        for (coding, hash) in
            [(Coding::Zstd, ZSTD_HASH), (Coding::Br, BR_HASH), (Coding::Gzip, GZIP_HASH)]
        {
            let (whole, parts) =
                (encode(coding, &[&text]).unwrap(), encode(coding, &pieces).unwrap());
            assert!(whole == parts && whole.len() < text.len() / 2, "{coding:?} {}", whole.len());
            assert_eq!(xxh3_64(&whole), hash, "{coding:?}");
        }
    }
    const ZSTD_HASH: u64 = 0xaeeb_d4e5_a494_3e88;
    const BR_HASH: u64 = 0xbfbb_261f_7dc1_dc37;
    const GZIP_HASH: u64 = 0x071d_b079_e807_3b20;

    /// RFC 9659 §3: decoders need not have more than 8 MB.
    #[test]
    fn rfc9659_the_window_of_zstd() {
        let long = vec![b'x'; 12 << 20];
        let bytes = encode(Coding::Zstd, &[long]).unwrap();
        let mut decoder = zstd::Decoder::new(&bytes[..]).unwrap();
        decoder.window_log_max(ZSTD_WINDOW_LOG).unwrap();
        let mut decoded = Vec::new();
        assert_eq!(decoder.read_to_end(&mut decoded).unwrap(), 12 << 20);
    }
}
