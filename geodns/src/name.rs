//! Domain names as the wire carries them: parsing from text, showing, comparing.
//!
//! A name is its labels, each behind a length octet, closed by the zero octet of the root; never compressed here.
//! Letters keep the case they were written in. Whoever compares names asks for [`Name::to_lower`] first: RFC 4343
//! folds ASCII letters and nothing else.

use std::borrow::Borrow;
use std::fmt;

/// Longest name in octets, length octets and the root included (RFC 1035 §2.3.4).
pub const MAX_NAME_BYTES: usize = 255;

/// Longest label in octets.
const MAX_LABEL_BYTES: usize = 63;

/// A domain name in wire form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self(Box::new([0]))
    }

    /// Reads a name as master files write it (RFC 1035 §5.1): `\X` and `\DDD` escapes, `@` for the origin, relative
    /// names completed by `origin`.
    pub fn parse(text: &[u8], origin: Option<&Self>) -> Result<Self, String> {
        let shown = || String::from_utf8_lossy(text).into_owned();
        if text == b"@" {
            return origin.cloned().ok_or_else(|| "`@` has no origin here".to_owned());
        }
        if text == b"." {
            return Ok(Self::root());
        }
        let mut wire = vec![0];
        let mut label_at = 0;
        let mut absolute = false;
        let mut rest = text.iter().copied();
        while let Some(octet) = rest.next() {
            let octet = match octet {
                b'.' => {
                    close_label(&mut wire, label_at)
                        .map_err(|why| format!("`{}` {why}", shown()))?;
                    label_at = wire.len();
                    wire.push(0);
                    absolute = true;
                    continue;
                }
                b'\\' => unescape(&mut rest).ok_or_else(|| {
                    format!("`{}` has a broken escape: write `\\.` or `\\046`", shown())
                })?,
                0..=0x20 | 0x7f.. => {
                    return Err(format!(
                        "`{}` has an octet outside of printable ASCII: write international names in their xn-- form, other octets as \\DDD",
                        shown()
                    ));
                }
                plain => plain,
            };
            absolute = false;
            wire.push(octet);
        }
        if !absolute {
            close_label(&mut wire, label_at).map_err(|why| format!("`{}` {why}", shown()))?;
            match origin {
                Some(origin) => wire.extend_from_slice(&origin.0),
                None => return Err(format!("`{}` is relative and has no origin here", shown())),
            }
        }
        if wire.len() > MAX_NAME_BYTES {
            return Err(format!("`{}` is longer than {MAX_NAME_BYTES} octets", shown()));
        }
        Ok(Self(wire.into()))
    }

    /// Reads an absolute name from text, whether or not its final dot is written.
    pub fn parse_absolute(text: &str) -> Result<Self, String> {
        Self::parse(text.as_bytes(), Some(&Self::root()))
    }

    /// Takes the uncompressed name at the beginning of `wire`; `None` when there is no whole one.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        Some(Self(wire.get(..wire_length(wire)?)?.into()))
    }

    /// The octets.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The same name with its ASCII letters in lower case: the form that is compared.
    #[must_use]
    pub fn to_lower(&self) -> Self {
        Self(self.0.to_ascii_lowercase().into())
    }

    /// Whether this is `ancestor` or lies below it. Both must be in lower case.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        is_within(&self.0, ancestor.as_wire())
    }

    /// Whether the first label is a lone asterisk.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with(b"\x01*")
    }

    /// `*.` before this name.
    pub fn wildcard(&self) -> Option<Self> {
        let wire: Vec<u8> = [b"\x01*".as_slice(), &self.0].concat();
        (wire.len() <= MAX_NAME_BYTES).then(|| Self(wire.into()))
    }
}

/// Names are looked up by their octets: both hash alike.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Shown(&self.0), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Shown(&self.0), f)
    }
}

/// Shows a name in wire form as master files write it, with escapes and the final dot; safe in logs and on terminals.
pub struct Shown<'n>(pub &'n [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut labels = 0;
        while let Some((&length, after)) = rest.split_first() {
            if length == 0 {
                break;
            }
            let (label, after) = after.split_at(usize::from(length).min(after.len()));
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        write!(f, "\\{}", char::from(octet))?;
                    }
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
            labels += 1;
            rest = after;
        }
        if labels == 0 { f.write_str(".") } else { Ok(()) }
    }
}

/// The name itself and each name above it, down to the root, as slices of the one given. Ends early on a broken name.
pub fn ancestors(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |name| parent(name))
}

/// Whether a name is `ancestor` or lies below it. Both must be in lower case.
pub fn is_within(wire: &[u8], ancestor: &[u8]) -> bool {
    let mut above = ancestors(wire).skip_while(|suffix| suffix.len() > ancestor.len());
    above.next() == Some(ancestor)
}

/// How many labels the name has, the root not counted.
pub fn label_count(wire: &[u8]) -> usize {
    ancestors(wire).count().saturating_sub(1)
}

/// Octets of the uncompressed name at the beginning of `wire`; `None` when it is cut short, too long, or has a length
/// octet that is not a label's.
pub fn wire_length(wire: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*wire.get(at)?);
        at += 1;
        if length == 0 {
            return Some(at);
        }
        at += length;
        if length > MAX_LABEL_BYTES || at >= MAX_NAME_BYTES {
            return None;
        }
    }
}

fn parent(wire: &[u8]) -> Option<&[u8]> {
    match wire.first().copied() {
        None | Some(0) => None,
        Some(length) => wire.get(1 + usize::from(length)..).filter(|rest| !rest.is_empty()),
    }
}

fn close_label(wire: &mut [u8], label_at: usize) -> Result<(), &'static str> {
    let length = wire.len() - label_at - 1;
    match u8::try_from(length) {
        Ok(0) => Err("has an empty label"),
        Ok(length) if usize::from(length) <= MAX_LABEL_BYTES => {
            if let Some(octet) = wire.get_mut(label_at) {
                *octet = length;
            }
            Ok(())
        }
        _ => Err("has a label longer than 63 octets"),
    }
}

/// What follows a backslash: three decimal digits, or one character that stands for itself.
pub fn unescape(rest: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = rest.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::parse_absolute(text).unwrap()
    }

    #[test]
    fn names_read_as_master_files_write_them() {
        let origin = name("cdn.test.");
        for (text, wire) in [
            ("@", b"\x03cdn\x04test\0".as_slice()),
            ("www", b"\x03www\x03cdn\x04test\0"),
            ("WwW.example.", b"\x03WwW\x07example\0"),
            (".", b"\0"),
            (r"a\.b", b"\x03a.b\x03cdn\x04test\0"),
            (r"\000\255x.", b"\x03\x00\xffx\0"),
            ("*.img", b"\x01*\x03img\x03cdn\x04test\0"),
            ("_sip._tcp", b"\x04_sip\x04_tcp\x03cdn\x04test\0"),
        ] {
            let parsed = Name::parse(text.as_bytes(), Some(&origin)).unwrap();
            assert_eq!(parsed.as_wire(), wire, "{text}");
        }
    }

    #[test]
    fn broken_names_are_refused() {
        let long_label = "a".repeat(64);
        let long_name = "abcdefgh.".repeat(29);
        for text in
            ["", "..", ".a", "a..b", "a b", r"a\25", r"a\256", "a\\", "é", &long_label, &long_name]
        {
            assert!(Name::parse(text.as_bytes(), Some(&Name::root())).is_err(), "{text}");
        }
        assert!(Name::parse(b"www", None).is_err());
    }

    #[test]
    fn wire_names_are_bounded() {
        assert_eq!(wire_length(b"\x01a\0rest"), Some(3));
        assert_eq!(wire_length(b"\x01a"), None);
        assert_eq!(wire_length(b"\xc0\x0c"), None);
        assert_eq!(wire_length(&[1; 300]), None);
        let longest: Vec<u8> = [b"\x01a".repeat(127).as_slice(), b"\0"].concat();
        assert_eq!(wire_length(&longest), Some(255));
        let too_long: Vec<u8> = [b"\x01a".repeat(127).as_slice(), b"\x01a\0"].concat();
        assert_eq!(wire_length(&too_long), None);
    }

    #[test]
    fn ancestors_end_at_the_root() {
        let texts: Vec<_> =
            ancestors(name("a.b.test").as_wire()).map(|n| Shown(n).to_string()).collect();
        assert_eq!(texts, ["a.b.test.", "b.test.", "test.", "."]);
        assert_eq!(label_count(name("a.b.test").as_wire()), 3);
        assert_eq!(label_count(b"\0"), 0);
    }

    #[test]
    fn within_counts_whole_labels() {
        assert!(name("a.cdn.test").is_within(&name("cdn.test")));
        assert!(name("cdn.test").is_within(&name("cdn.test")));
        assert!(!name("acdn.test").is_within(&name("cdn.test")));
        assert!(!Name::parse(br"a\.cdn.test.", None).unwrap().is_within(&name("cdn.test")));
    }

    proptest! {
        #[test]
        fn shown_names_read_back(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=20), 0..=8)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).unwrap());
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let name = Name::from_wire(&wire).unwrap();
            prop_assert_eq!(Name::parse(name.to_string().as_bytes(), None).unwrap(), name);
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Shown(&bytes).to_string();
            prop_assert!(ancestors(&bytes).count() <= bytes.len() + 1);
            if let Some(name) = Name::from_wire(&bytes) {
                prop_assert!(name.as_wire().len() <= MAX_NAME_BYTES);
            }
        }
    }
}
