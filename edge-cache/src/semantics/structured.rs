//! Structured fields (RFC 9651) as far as this cache reads and writes them: strict parsing of dictionaries (RFC 9213's
//! targeted fields), writing of tokens and strings (Cache-Status, Proxy-Status).
//!
//! Parsing is strict, as the RFC demands: a dictionary with one fault anywhere is no dictionary.

use http::header::HeaderName;

use super::cache_control::is_token_byte;
use super::fields::Lines;

/// How many members a dictionary may have before it is refused.
const MAX_MEMBERS: usize = 128;

/// The value of a dictionary's member. What the cache never looks into is only checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Integer.
    Integer(i64),
    /// Boolean; a member without a value is true.
    Boolean(bool),
    /// String, unescaped.
    String(String),
    /// Token.
    Token(String),
    /// Inner list.
    List(Vec<Self>),
    /// Decimal, byte sequence, date or display string.
    Other,
}

/// A dictionary: members in order, the last of equal keys counting at the place of the first.
pub type Dictionary = Vec<(String, Item)>;

/// The dictionary in a field, its lines joined; `None` when it is absent, empty or breaks the syntax.
pub fn dictionary(headers: &impl Lines, name: &HeaderName) -> Option<Dictionary> {
    let mut lines = headers.lines(name);
    let first = lines.next()?;
    let Some(second) = lines.next() else { return parse_dictionary(first) };
    let mut joined = first.to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line);
    }
    parse_dictionary(&joined)
}

/// RFC 9651 §4.2.2; an empty dictionary is `None` too: nobody tells the two apart.
pub fn parse_dictionary(input: &[u8]) -> Option<Dictionary> {
    let mut parser = Parser { rest: input };
    parser.skip(|b| b == b' ');
    let mut members = Dictionary::new();
    while !parser.rest.is_empty() {
        let key = parser.key()?;
        let item = if parser.take(b'=') {
            parser.item_or_inner_list()?
        } else {
            parser.parameters()?;
            Item::Boolean(true)
        };
        match members.iter().position(|(known, _)| *known == key) {
            Some(at) => members[at].1 = item,
            None if members.len() == MAX_MEMBERS => return None,
            None => members.push((key, item)),
        }
        parser.skip(|b| b == b' ' || b == b'\t');
        if parser.rest.is_empty() {
            break;
        }
        if !parser.take(b',') {
            return None;
        }
        parser.skip(|b| b == b' ' || b == b'\t');
        if parser.rest.is_empty() {
            return None;
        }
    }
    if members.is_empty() { None } else { Some(members) }
}

/// The strings of a list in a field, its lines joined; none of them when anything in it breaks the syntax or is no string
/// (RFC 9875 §2: Cache-Groups). Parameters are passed over.
pub fn string_list(headers: &impl Lines, name: &HeaderName) -> Vec<String> {
    let lines: Vec<&[u8]> = headers.lines(name).collect();
    parse_string_list(&lines.join(&b", "[..])).unwrap_or_default()
}

/// RFC 9651 §4.2.1, of strings alone.
pub fn parse_string_list(input: &[u8]) -> Option<Vec<String>> {
    let mut parser = Parser { rest: input };
    parser.skip(|b| b == b' ');
    let mut members = Vec::new();
    loop {
        let Item::String(text) = parser.item()? else { return None };
        members.push(text);
        parser.skip(|b| b == b' ' || b == b'\t');
        if parser.rest.is_empty() {
            return Some(members);
        }
        if !parser.take(b',') {
            return None;
        }
        parser.skip(|b| b == b' ' || b == b'\t');
    }
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn skip(&mut self, skipped: impl Fn(u8) -> bool) {
        self.take_while(skipped);
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self.rest.iter().take_while(|b| wanted(**b)).count();
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<String> {
        if !self.peek().is_some_and(|b| b.is_ascii_lowercase() || b == b'*') {
            return None;
        }
        let key = self.take_while(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.' | b'*')
        });
        Some(String::from_utf8_lossy(key).into_owned())
    }

    fn item_or_inner_list(&mut self) -> Option<Item> {
        if !self.take(b'(') {
            return self.item();
        }
        let mut items = Vec::new();
        loop {
            self.skip(|b| b == b' ');
            if self.take(b')') {
                self.parameters()?;
                return Some(Item::List(items));
            }
            items.push(self.item()?);
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Item> {
        let item = self.bare_item()?;
        self.parameters()?;
        Some(item)
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip(|b| b == b' ');
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn bare_item(&mut self) -> Option<Item> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string().map(Item::String),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                let token = self.take_while(|b| is_token_byte(b) || b == b':' || b == b'/');
                Some(Item::Token(String::from_utf8_lossy(token).into_owned()))
            }
            b':' => {
                self.next();
                let content = self.take_while(|b| b != b':');
                let base64 = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
                (self.take(b':') && content.iter().all(base64)).then_some(Item::Other)
            }
            b'?' => {
                self.next();
                match self.next()? {
                    b'1' => Some(Item::Boolean(true)),
                    b'0' => Some(Item::Boolean(false)),
                    _ => None,
                }
            }
            b'@' => {
                self.next();
                matches!(self.number()?, Item::Integer(_)).then_some(Item::Other)
            }
            b'%' => self.display_string(),
            _ => None,
        }
    }

    /// At most 15 digits, or 12 and 3 after the point.
    fn number(&mut self) -> Option<Item> {
        let negative = self.take(b'-');
        let digits = self.take_while(|b| b.is_ascii_digit());
        if digits.is_empty() || digits.len() > 15 {
            return None;
        }
        if self.take(b'.') {
            let fraction = self.take_while(|b| b.is_ascii_digit());
            return (digits.len() <= 12 && (1..=3).contains(&fraction.len()))
                .then_some(Item::Other);
        }
        let value = digits.iter().fold(0i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(Item::Integer(if negative { -value } else { value }))
    }

    fn string(&mut self) -> Option<String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(text),
                b'\\' => match self.next()? {
                    escaped @ (b'"' | b'\\') => text.push(char::from(escaped)),
                    _ => return None,
                },
                plain @ 0x20..=0x7e => text.push(char::from(plain)),
                _ => return None,
            }
        }
    }

    fn display_string(&mut self) -> Option<Item> {
        self.next();
        if !self.take(b'"') {
            return None;
        }
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => return str::from_utf8(&bytes).is_ok().then_some(Item::Other),
                b'%' => {
                    let mut nibble = || match self.next()? {
                        digit @ b'0'..=b'9' => Some(digit - b'0'),
                        letter @ b'a'..=b'f' => Some(letter - b'a' + 10),
                        _ => None,
                    };
                    let high = nibble()?;
                    bytes.push(high << 4 | nibble()?);
                }
                plain @ 0x20..=0x7e => bytes.push(plain),
                _ => return None,
            }
        }
    }
}

/// Writes a name as sf-token where it is one, else as sf-string: node names in Cache-Status and Proxy-Status.
pub fn write_name(out: &mut String, name: &str) {
    let starts = name.as_bytes().first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'*');
    if starts && name.bytes().all(|b| is_token_byte(b) || b == b':' || b == b'/') {
        out.push_str(name);
    } else {
        write_string(out, name);
    }
}

/// Writes an sf-string; what may not stand in one becomes `?`.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc9651_4_2_2_dictionaries() {
        let int = |key: &str, value| (key.to_owned(), Item::Integer(value));
        for (text, expected) in [
            ("max-age=60", Some(vec![int("max-age", 60)])),
            ("a=1,b=2", Some(vec![int("a", 1), int("b", 2)])),
            ("a=1 ,\t b=-2  ", Some(vec![int("a", 1), int("b", -2)])),
            ("a=1, a=3", Some(vec![int("a", 3)])),
            ("a=1;q=\"x\";z, b=2;*p", Some(vec![int("a", 1), int("b", 2)])),
            ("a", Some(vec![("a".into(), Item::Boolean(true))])),
            ("a;x=1", Some(vec![("a".into(), Item::Boolean(true))])),
            ("a=?0", Some(vec![("a".into(), Item::Boolean(false))])),
            ("a=tok/en:x", Some(vec![("a".into(), Item::Token("tok/en:x".into()))])),
            ("a=\"q\\\"\\\\\"", Some(vec![("a".into(), Item::String("q\"\\".into()))])),
            (
                "a=(1 \"b\";p c);q",
                Some(vec![(
                    "a".into(),
                    Item::List(vec![
                        Item::Integer(1),
                        Item::String("b".into()),
                        Item::Token("c".into()),
                    ]),
                )]),
            ),
            ("a=()", Some(vec![("a".into(), Item::List(Vec::new()))])),
            (
                "a=1.5, b=:aGk=:, c=@1659578233, d=%\"f%c3%bc\"",
                Some(vec![
                    ("a".into(), Item::Other),
                    ("b".into(), Item::Other),
                    ("c".into(), Item::Other),
                    ("d".into(), Item::Other),
                ]),
            ),
            ("max-age=999999999999999", Some(vec![int("max-age", 999_999_999_999_999)])),
            ("max-age=9999999999999999", None),
            ("", None),
            ("a=1,", None),
            ("a=1, ,b", None),
            ("a=1 b=2", None),
            ("max-age=10000, &&&&&", None),
            ("MaX-aGe=3600", None),
            ("max-age =100", None),
            ("max-age= 100", None),
            ("a=\"open", None),
            ("a=\"\\x\"", None),
            ("a=(1", None),
            ("a=(1\"b\")", None),
            ("a=1.", None),
            ("a=1.2345", None),
            ("a=?2", None),
            ("a=:a b:", None),
            ("a=%\"%C3\"", None),
            ("a=@1.5", None),
            ("a=-", None),
            ("\ta=1", None),
        ] {
            assert_eq!(parse_dictionary(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn rfc9651_4_2_1_lists_of_strings() {
        for (text, expected) in [
            ("\"a\"", Some(&["a"][..])),
            (" \"a\";x=1 ,\t\"b \\\"c\"  ", Some(&["a", "b \"c"])),
            ("\"\"", Some(&[""])),
            ("", None),
            ("a", None),
            ("\"a\",", None),
            ("\"a\" \"b\"", None),
            ("\"a\", 1", None),
            ("(\"a\")", None),
            ("\"a", None),
        ] {
            let expected = expected.map(|list| list.iter().map(|s| (*s).to_owned()).collect());
            assert_eq!(parse_string_list(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn members_are_bounded() {
        let of = |n| (0..n).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ");
        assert!(parse_dictionary(of(MAX_MEMBERS).as_bytes()).is_some());
        assert!(parse_dictionary(of(MAX_MEMBERS + 1).as_bytes()).is_none());
    }

    #[test]
    fn names_are_tokens_or_strings() {
        for (name, expected) in [
            ("icn-1", "icn-1"),
            ("1icn", "\"1icn\""),
            ("a b", "\"a b\""),
            ("a\"b\\", "\"a\\\"b\\\\\""),
            ("ü\n", "\"??\""),
            ("", "\"\""),
        ] {
            let mut out = String::new();
            write_name(&mut out, name);
            assert_eq!(out, expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_dictionary(&bytes);
        }

        #[test]
        fn near_syntax_does_not_panic(text in "([a-c*]{1,2}[=;(\") ]{0,3}[0-9.:?@%-]{0,4},? ?){0,6}") {
            let _ = parse_dictionary(text.as_bytes());
        }

        #[test]
        fn strings_survive_a_round_trip(text in "[ -~]{0,40}") {
            let mut out = String::from("k=");
            write_string(&mut out, &text);
            prop_assert_eq!(parse_dictionary(out.as_bytes()), Some(vec![("k".into(), Item::String(text))]));
        }
    }
}
