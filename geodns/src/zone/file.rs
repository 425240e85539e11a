//! Master files (RFC 1035 §5): text to records, every mistake with its file and line.
//!
//! Knows `$ORIGIN`, `$TTL` (RFC 2308 §4) and `$INCLUDE`; files come through the caller's function, so that nothing here
//! touches a disk. Whether the records make a zone is decided by [`super::Builder`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rdata;
use super::records::Records;
use super::{Location, MAX_PROBLEMS, Problem};
use crate::name::Name;
use crate::rtype;

/// How deep `$INCLUDE` may go.
const MAX_DEPTH: usize = 16;

/// Gives the contents of a file.
pub type ReadFile<'f> = dyn Fn(&Path) -> Result<Vec<u8>, String> + 'f;

/// Reads the file at `path` and what it includes, `apex` being the first origin.
pub fn read(path: &Path, apex: &Name, read_file: &ReadFile<'_>) -> (Records, Vec<Problem>) {
    let mut reader = Reader {
        read_file,
        records: Records::default(),
        problems: Vec::new(),
        default_ttl: None,
        last_ttl: None,
        last_owner: None,
        open: Vec::new(),
    };
    reader.file(path, apex.clone(), None);
    (reader.records, reader.problems)
}

struct Reader<'f> {
    read_file: &'f ReadFile<'f>,
    records: Records,
    problems: Vec<Problem>,
    /// `$TTL`.
    default_ttl: Option<u32>,
    /// Last TTL that a record stated.
    last_ttl: Option<u32>,
    last_owner: Option<Name>,
    /// Files being read, the outermost first.
    open: Vec<PathBuf>,
}

/// Where an entry stands.
struct Place<'p> {
    path: &'p Path,
    name: &'p Arc<str>,
    /// The file among those of the zone.
    file: u16,
    line: u32,
}

impl Place<'_> {
    fn location(&self) -> Location {
        Location { file: Arc::clone(self.name), line: self.line }
    }
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, mut origin: Name, included_at: Option<&Location>) {
        let here = Location { file: Arc::from(path.to_string_lossy()), line: 0 };
        let at = included_at.unwrap_or(&here);
        if self.open.iter().any(|open| open == path) || self.open.len() >= MAX_DEPTH {
            let why = format!("`{}` is included by itself, or too deep", path.display());
            self.problems.push(Problem::error(at, why));
            return;
        }
        let bytes = match (self.read_file)(path) {
            Ok(bytes) => bytes,
            Err(why) => {
                let why = format!("`{}` cannot be read: {why}", path.display());
                self.problems.push(Problem::error(at, why));
                return;
            }
        };
        let file = match self.records.open(&here.file) {
            Ok(file) => file,
            Err(why) => {
                self.problems.push(Problem::error(at, why));
                return;
            }
        };
        self.open.push(path.to_owned());
        let mut entries = Entries::new(&bytes);
        while let Some(entry) = entries.next() {
            let place = Place { path, name: &here.file, file, line: entries.entry_line };
            let result = entry.and_then(|entry| self.entry(&entry, &mut origin, &place));
            if let Err(why) = result {
                self.problems.push(Problem::error(&place.location(), why));
            }
            if self.problems.len() >= MAX_PROBLEMS {
                break;
            }
        }
        self.open.pop();
    }

    fn entry(
        &mut self,
        entry: &Entry<'_>,
        origin: &mut Name,
        place: &Place<'_>,
    ) -> Result<(), String> {
        let Some((first, rest)) = entry.tokens.split_first() else { return Ok(()) };
        if first.text.starts_with(b"$") && !first.quoted && !entry.starts_blank {
            return self.directive(first, rest, origin, place);
        }
        let rest = if entry.starts_blank {
            entry.tokens.as_slice()
        } else {
            self.last_owner = Some(Name::parse(first.text, Some(origin))?);
            rest
        };
        let (ttl, rtype, rest) = ttl_class_type(rest)?;
        if ttl.is_some() {
            self.last_ttl = ttl;
        }
        let ttl = ttl
            .or(self.default_ttl)
            .or(self.last_ttl)
            .ok_or("this record has no TTL: begin the file with `$TTL 3600`")?;
        let rdata = rdata::parse(rtype, rest, Some(origin))?;
        let owner = self.last_owner.as_ref().ok_or("the first record has no owner name")?;
        self.records.push(owner.as_wire(), rtype, ttl, &rdata, (place.file, place.line))
    }

    fn directive(
        &mut self,
        directive: &Token<'_>,
        arguments: &[Token<'_>],
        origin: &mut Name,
        place: &Place<'_>,
    ) -> Result<(), String> {
        match (directive.text.to_ascii_uppercase().as_slice(), arguments) {
            (b"$ORIGIN", [name]) => *origin = Name::parse(name.text, Some(origin))?,
            (b"$TTL", [ttl]) => {
                let ttl = ttl.as_str().and_then(rdata::parse_time);
                self.default_ttl = Some(ttl.ok_or("write `$TTL 3600` or `$TTL 1h`")?);
            }
            (b"$INCLUDE", [file] | [file, _]) => {
                let name = rdata::unescaped(file)?;
                let name =
                    std::str::from_utf8(&name).map_err(|_| "the file's name is not UTF-8")?;
                let included = place.path.parent().unwrap_or_else(|| Path::new("")).join(name);
                let origin = match arguments.get(1) {
                    Some(other) => Name::parse(other.text, Some(origin))?,
                    None => origin.clone(),
                };
                // Neither origin nor owner of the included file reach back into this one.
                let owner = self.last_owner.clone();
                self.file(&included, origin, Some(&place.location()));
                self.last_owner = owner;
            }
            (b"$ORIGIN", _) => return Err("write `$ORIGIN NAME`".to_owned()),
            (b"$TTL", _) => return Err("write `$TTL SECONDS`".to_owned()),
            (b"$INCLUDE", _) => {
                return Err("write `$INCLUDE FILE` or `$INCLUDE FILE ORIGIN`".to_owned());
            }
            (b"$GENERATE", _) => {
                return Err("$GENERATE is not part of RFC 1035: write the records out".to_owned());
            }
            _ => {
                return Err(format!("`{}` is none of $ORIGIN, $TTL, $INCLUDE", directive.shown()));
            }
        }
        Ok(())
    }
}

/// `[TTL] [class] type` in either order of the first two.
fn ttl_class_type<'t, 'a>(
    tokens: &'t [Token<'a>],
) -> Result<(Option<u32>, u16, &'t [Token<'a>]), String> {
    let mut ttl = None;
    let mut class_seen = false;
    let mut rest = tokens;
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        let text = token.as_str().unwrap_or_default();
        if ttl.is_none() && text.starts_with(|c: char| c.is_ascii_digit()) {
            let parsed = rdata::parse_time(text);
            ttl =
                Some(parsed.ok_or_else(|| format!("`{text}` is not a TTL: write `3600` or `1h`"))?);
        } else if !class_seen && ["IN", "CLASS1"].iter().any(|c| text.eq_ignore_ascii_case(c)) {
            class_seen = true;
        } else if !class_seen && ["CH", "HS", "CS"].iter().any(|c| text.eq_ignore_ascii_case(c)) {
            return Err(format!("class {text} is not served: only IN is"));
        } else {
            let rtype = rtype::parse(text).filter(|_| !token.quoted);
            let rtype = rtype.ok_or_else(|| format!("`{}` is not a record type", token.shown()))?;
            return Ok((ttl, rtype, rest));
        }
    }
    Err("the record type is missing".to_owned())
}

/// A piece of an entry: a word, or what stands between quotes. Escapes are still in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) text: &'a [u8],
    pub(super) quoted: bool,
    /// No space stands before it.
    pub(super) joined: bool,
}

impl Token<'_> {
    pub(super) fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.text).ok()
    }

    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(self.text).chars().take(80).collect()
    }
}

/// What the file has between two ends of lines, parentheses resolved.
struct Entry<'a> {
    /// The line begins with a space: the owner is the last one.
    starts_blank: bool,
    tokens: Vec<Token<'a>>,
}

struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
    /// Where the entry last returned began.
    entry_line: u32,
}

impl<'a> Entries<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, line: 1, entry_line: 1 }
    }

    fn next(&mut self) -> Option<Result<Entry<'a>, String>> {
        self.entry_line = self.line;
        let starts_blank = matches!(self.peek()?, b' ' | b'\t');
        let mut tokens = Vec::new();
        let mut depth = 0_u32;
        let mut spaced = true;
        let mut result = Ok(());
        while let Some(octet) = self.peek() {
            match octet {
                b'\n' if depth == 0 => {
                    self.bump();
                    break;
                }
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.bump();
                    spaced = true;
                    continue;
                }
                b';' => {
                    while self.peek().is_some_and(|octet| octet != b'\n') {
                        self.bump();
                    }
                    continue;
                }
                b'(' => {
                    self.bump();
                    depth += 1;
                }
                b')' => {
                    self.bump();
                    if depth == 0 {
                        result = Err("`)` without `(`".to_owned());
                    }
                    depth = depth.saturating_sub(1);
                }
                b'"' => match self.quoted() {
                    Some(text) => tokens.push(Token { text, quoted: true, joined: !spaced }),
                    None => result = Err("a quoted text has no closing `\"`".to_owned()),
                },
                _ => tokens.push(Token { text: self.word(), quoted: false, joined: !spaced }),
            }
            spaced = matches!(octet, b'(' | b')');
        }
        if depth > 0 && result.is_ok() {
            result = Err("`(` without `)`".to_owned());
        }
        Some(result.map(|()| Entry { starts_blank, tokens }))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn bump(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    /// The octets between quotes; `None` when the file ends before the second one.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        self.bump();
        let start = self.at;
        while let Some(octet) = self.peek() {
            match octet {
                b'"' => {
                    let text = self.bytes.get(start..self.at);
                    self.bump();
                    return text;
                }
                b'\\' => {
                    self.bump();
                    self.bump();
                }
                _ => self.bump(),
            }
        }
        None
    }

    fn word(&mut self) -> &'a [u8] {
        let start = self.at;
        while let Some(octet) = self.peek() {
            match octet {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"' => break,
                b'\\' => {
                    self.bump();
                    if self.peek().is_some_and(|next| next != b'\n') {
                        self.bump();
                    }
                }
                _ => self.bump(),
            }
        }
        self.bytes.get(start..self.at.min(self.bytes.len())).unwrap_or_default()
    }
}

/// The tokens of one line.
#[cfg(test)]
pub(super) fn tokens_of(text: &str) -> Vec<Token<'_>> {
    Entries::new(text.as_bytes()).next().map_or_else(Vec::new, |entry| entry.unwrap().tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::Shown;
    use crate::zone::records::Record;

    fn read_text(text: &str) -> (Vec<String>, Vec<String>) {
        read_files(&[("cdn.zone", text)])
    }

    fn read_files(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let read_file = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| "no such file".to_owned())
        };
        let apex = Name::parse_absolute("cdn.test").unwrap();
        let (records, problems) = read(Path::new(files[0].0), &apex, &read_file);
        let shown = |record: Record<'_>| {
            format!("{} {} {}", Shown(record.owner), record.ttl, rtype::Shown(record.rtype))
        };
        (records.iter().map(shown).collect(), problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn entries_read_as_rfc_1035_section_5_1_writes_them() {
        let text = "\
$TTL 1h ; a comment
@ IN SOA ns1 hostmaster (
    2026 ; serial
    1h 10m 2w ; )
    60 )
  NS ns1
\tIN 300 NS ns2
ns1 300 IN A 192.0.2.1
ns2 A 192.0.2.2
$ORIGIN sub
www.img AAAA 2001:db8::1
a\\.b TXT \"semi;colon (and) \\\"quotes\\\"\" word
\\# TXT x
abs.cdn.test. TXT x";
        let (records, problems) = read_text(text);
        assert_eq!(problems, [] as [String; 0]);
        assert_eq!(
            records,
            [
                "cdn.test. 3600 SOA",
                "cdn.test. 3600 NS",
                "cdn.test. 300 NS",
                "ns1.cdn.test. 300 A",
                "ns2.cdn.test. 3600 A",
                "www.img.sub.cdn.test. 3600 AAAA",
                "a\\.b.sub.cdn.test. 3600 TXT",
                "#.sub.cdn.test. 3600 TXT",
                "abs.cdn.test. 3600 TXT",
            ]
        );
    }

    /// What is allowed and seldom seen: CRLF, tabs, a class in RFC 3597's form, names that look like something else,
    /// parentheses and quotes that go on over lines, strings without a space between them, no end of the last line.
    #[test]
    fn odd_files_read_as_rfc_1035_section_5_1_allows() {
        let text = "$TTL 60\r\n\r\n ; alone\r\n\t\r\n\
IN\tCLASS1 5 A 192.0.2.1\r\n\
3600 3600 IN A ( 192.0.2.2\r\n)\r\n\
A A A A\n\
txt TXT ( \"two\nlines\" \"a\"\"b\" ; not this\n c )\n\
\\@ MX 10 @\n\
\\032\\009 TXT \\\"\n\
$origin .\n\
x.cdn.test TYPE1 \\# 4 C0000203";
        let (records, problems) = read_text(text);
        // `A` is an owner, and then no address.
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("cdn.zone:8: A: `A` is not an IPv4 address"),
            "{problems:?}"
        );
        assert_eq!(
            records,
            [
                "in.cdn.test. 5 A",
                "3600.cdn.test. 3600 A",
                "txt.cdn.test. 60 TXT",
                "\\@.cdn.test. 60 MX",
                "\\032\\009.cdn.test. 60 TXT",
                "x.cdn.test. 60 A",
            ]
        );
        let apex = Name::parse_absolute("cdn.test").unwrap();
        let (records, _) = read(Path::new("x"), &apex, &|_| Ok(text.into()));
        let data: Vec<_> = records.iter().map(|record| record.rdata.to_vec()).collect();
        assert_eq!(data[2], b"\x09two\nlines\x01a\x01b\x01c");
        assert_eq!(data[3], b"\0\x0a\x03cdn\x04test\0");
        assert_eq!(
            (data[4].as_slice(), data[5].as_slice()),
            (b"\x01\"".as_slice(), [192, 0, 2, 3].as_slice())
        );
    }

    #[test]
    fn without_a_default_the_last_stated_ttl_counts() {
        let (records, problems) = read_text("a 7 A 192.0.2.1\nb A 192.0.2.1\n");
        assert_eq!((records.len(), problems.len()), (2, 0));
        assert_eq!(records[1], "b.cdn.test. 7 A");
    }

    #[test]
    fn includes_have_their_own_origin_and_owner() {
        let (records, problems) = read_files(&[
            (
                "zones/cdn.zone",
                "$TTL 9\na A 192.0.2.1\n$INCLUDE more.zone sub\n A 192.0.2.2\nb A 192.0.2.3\n",
            ),
            ("zones/more.zone", "c A 192.0.2.4\n$ORIGIN elsewhere\nd A 192.0.2.5\n"),
        ]);
        assert_eq!(problems, [] as [String; 0]);
        let expected = ["a.cdn", "c.sub.cdn", "d.elsewhere.sub.cdn", "a.cdn", "b.cdn"];
        assert_eq!(records, expected.map(|owner| format!("{owner}.test. 9 A")));
    }

    #[test]
    fn mistakes_have_their_line_and_do_not_hide_each_other() {
        let (records, problems) = read_text(
            "a A 192.0.2.1\n$TTL 60\nb A nonsense\nc NOPE x\nd (\n 7z A 192.0.2.1 )\ne A 192.0.2.9\n$WHAT\n$GENERATE 1-2 a A 1.2.3.4\n\"x\nf A 192.0.2.1",
        );
        assert_eq!(records, ["e.cdn.test. 60 A"]);
        let expected = [
            ("cdn.zone:1:", "$TTL 3600"),
            ("cdn.zone:3:", "not an IPv4 address"),
            ("cdn.zone:4:", "not a record type"),
            ("cdn.zone:5:", "not a TTL"),
            ("cdn.zone:8:", "none of $ORIGIN"),
            ("cdn.zone:9:", "write the records out"),
            ("cdn.zone:10:", "closing"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, (place, part)) in problems.iter().zip(expected) {
            assert!(problem.starts_with(place) && problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn files_that_include_themselves_are_refused() {
        let (_, problems) = read_files(&[("a", "$INCLUDE b\n"), ("b", "\n$INCLUDE a\n")]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("b:2:") && problems[0].contains("by itself"));
        let (_, problems) = read_files(&[("a", "$INCLUDE nowhere\n")]);
        assert!(problems[0].starts_with("a:1:") && problems[0].contains("no such file"));
    }

    proptest! {
        #[test]
        fn any_file_is_safe(bytes in prop::collection::vec(prop_oneof![
            Just(b' '), Just(b'\n'), Just(b'('), Just(b')'), Just(b'"'), Just(b'\\'), Just(b';'), Just(b'$'), any::<u8>(),
        ], 0..200)) {
            let apex = Name::parse_absolute("cdn.test").unwrap();
            let (_, problems) = read(Path::new("x"), &apex, &|_| Ok(bytes.clone()));
            prop_assert!(problems.len() <= MAX_PROBLEMS);
        }

        #[test]
        fn any_rdata_is_safe(rtype in "A|NS|SOA|TXT|MX|SRV|CAA|HTTPS|NAPTR|CSYNC|TYPE999|DS|CERT", text in "[ -~]{0,60}") {
            let line = format!("x 60 {rtype} {text}\n");
            let apex = Name::parse_absolute("cdn.test").unwrap();
            let _ = read(Path::new("x"), &apex, &|_| Ok(line.clone().into_bytes()));
        }
    }
}
