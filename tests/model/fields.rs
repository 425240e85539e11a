//! The reference's own reading of fields, as simple as can be and shared with nothing in the programs.

/// Name (lower-case) and value.
pub(super) type Fields = Vec<(String, String)>;

/// All lines of a field.
pub(super) fn lines<'a>(fields: &'a Fields, name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
}

/// Whether it is there.
pub(super) fn has(fields: &Fields, name: &str) -> bool {
    !lines(fields, name).is_empty()
}

/// The members of a comma-separated list, quotes respected, empty ones left out (RFC 9110 §5.6.1).
pub(super) fn members(text: &str) -> Vec<String> {
    let (mut found, mut member) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if c == ',' && !quoted {
            found.push(std::mem::take(&mut member));
            continue;
        }
        if !escaped && c == '"' {
            quoted = !quoted;
        }
        escaped = quoted && !escaped && c == '\\';
        member.push(c);
    }
    found.push(member);
    found.iter().map(|m| m.trim().to_owned()).filter(|m| !m.is_empty()).collect()
}

/// The directives of a field: name in lower case, argument without its quotes (RFC 9111 §5.2).
pub(super) fn directives(fields: &Fields, name: &str) -> Vec<(String, Option<String>)> {
    let all = lines(fields, name).into_iter().flat_map(members);
    all.map(|member| match member.split_once('=') {
        None => (member.to_ascii_lowercase(), None),
        Some((name, argument)) => {
            let bare = argument.strip_prefix('"').and_then(|a| a.strip_suffix('"'));
            (name.to_ascii_lowercase(), Some(bare.unwrap_or(argument).to_owned()))
        }
    })
    .collect()
}

/// RFC 9111 §1.2.2: digits, as seconds; too many are 2^31.
pub(super) fn delta(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    digits.then(|| text.parse::<u64>().map_or(1 << 31, |seconds| seconds.min(1 << 31)))
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

fn days_of(year: u64, month: usize) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// The three forms of RFC 9110 §5.6.7.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Imf,
    Rfc850,
    Asctime,
}

/// Seconds since 1970 as a date.
pub(super) fn date(seconds: u64, form: Form) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // The first of January 1970 was a Thursday.
    let weekday = DAYS[((days + 3) % 7) as usize];
    let (mut year, mut month, mut day) = (1970, 0, days);
    while day >= if is_leap(year) { 366 } else { 365 } {
        day -= if is_leap(year) { 366 } else { 365 };
        year += 1;
    }
    while day >= days_of(year, month) {
        day -= days_of(year, month);
        month += 1;
    }
    let (day, name) = (day + 1, MONTHS[month]);
    let clock = format!("{:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60);
    match form {
        Form::Imf => format!("{}, {day:02} {name} {year} {clock} GMT", &weekday[..3]),
        Form::Rfc850 => format!("{weekday}, {day:02}-{name}-{:02} {clock} GMT", year % 100),
        Form::Asctime => format!("{} {name} {day:2} {clock} {year}", &weekday[..3]),
    }
}

/// What [`date`] writes, read again; anything else is no date.
pub(super) fn parse_date(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.split([' ', '-']).filter(|part| !part.is_empty()).collect();
    let (day, month, year, clock) = match parts[..] {
        [_, day, month, year, clock, "GMT"] => (day, month, year, clock),
        [_, month, day, clock, year] => (day, month, year, clock),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)?;
    let year: u64 = year.parse().ok()?;
    // Histories are played in this century.
    let year = if year < 100 { year + 2000 } else { year };
    let day: u64 = day.parse().ok()?;
    let mut clock = clock.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let years = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u64>();
    let months = (0..month).map(|month| days_of(year, month)).sum::<u64>();
    Some((years + months + day - 1) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// The date of a field that is there once.
pub(super) fn date_field(fields: &Fields, name: &str) -> Option<u64> {
    match lines(fields, name)[..] {
        [only] => parse_date(only),
        _ => None,
    }
}

/// An entity tag (RFC 9110 §8.8.3): whether it is weak, and what stands between its quotes.
pub(super) fn entity_tag(text: &str) -> Option<(bool, String)> {
    let (weak, rest) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let inside = rest.strip_prefix('"')?.strip_suffix('"')?;
    (!inside.contains(['"', ' '])).then(|| (weak, inside.to_owned()))
}

/// A structured dictionary (RFC 9651 §3.2) of the plain kinds that targeted fields have: `true`, a number, or anything
/// else as text; the last of a name counts. `None`: not one.
pub(super) fn dictionary(fields: &Fields, name: &str) -> Option<Vec<(String, Value)>> {
    let joined = lines(fields, name).join(",");
    let mut found: Vec<(String, Value)> = Vec::new();
    if joined.trim().is_empty() {
        return Some(found);
    }
    for member in joined.split(',') {
        let member = member.trim().split(';').next().unwrap_or_default();
        let (key, value) = match member.split_once('=') {
            None => (member, Value::Flag(true)),
            Some((key, "?1")) => (key, Value::Flag(true)),
            Some((key, "?0")) => (key, Value::Flag(false)),
            Some((key, value)) if value.parse::<i64>().is_ok() && !value.starts_with('+') => {
                (key, Value::Number(value.parse().ok()?))
            }
            Some((key, value)) if value.len() >= 2 && value.starts_with('"') => {
                value.ends_with('"').then_some((key, Value::Text))?
            }
            Some((key, value)) if value.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                (key, Value::Text)
            }
            Some(_) => return None,
        };
        let valid = key.starts_with(|c: char| c.is_ascii_lowercase())
            && key
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c));
        if !valid {
            return None;
        }
        found.retain(|(known, _)| known != key);
        found.push((key.to_owned(), value));
    }
    Some(found)
}

/// A value of a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Flag(bool),
    Number(i64),
    Text,
}

#[test]
fn what_the_reference_writes_it_reads() {
    // RFC 9110 §5.6.7's own example.
    assert_eq!(date(784_111_777, Form::Imf), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(date(784_111_777, Form::Rfc850), "Sunday, 06-Nov-94 08:49:37 GMT");
    assert_eq!(date(784_111_777, Form::Asctime), "Sun Nov  6 08:49:37 1994");
    for seconds in [951_782_400, 1_800_000_000, 1_835_395_199, 1_835_395_200] {
        for form in [Form::Imf, Form::Rfc850, Form::Asctime] {
            assert_eq!(parse_date(&date(seconds, form)), Some(seconds), "{form:?}");
        }
    }
    assert_eq!(members("a, \"b,\\\"c\" ,,d"), ["a", "\"b,\\\"c\"", "d"]);
}
