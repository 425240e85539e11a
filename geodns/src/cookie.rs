//! DNS cookies (RFC 7873) in the interoperable form (RFC 9018): a client that shows ours has seen an earlier answer at
//! the address it claims to have.
//!
//! Says whether a cookie is ours, and which one the answer carries. What a client without one is denied is
//! [`crate::rrl`]'s and [`crate::answer`]'s decision. Servers behind one address share a secret; during a rollover two
//! are taken, and the first makes new cookies (RFC 9018 §5).

use std::fmt;
use std::net::IpAddr;

use shared::time::UnixMillis;
use siphasher::sip::SipHasher24;

/// Octets of a client's cookie.
const CLIENT_BYTES: usize = 8;

/// Octets of a client's and our cookie together.
pub const COOKIE_BYTES: usize = 24;

/// The version of our cookies (RFC 9018 §4.1).
const VERSION: u8 = 1;

/// Our cookies are good for this long, in seconds (RFC 9018 §4.3).
const LIFETIME: i32 = 3600;
/// One that another server made with a clock ahead of ours is good, too.
const AHEAD: i32 = 300;
/// An older one is answered with a new one.
const RENEWED_AFTER: i32 = 1800;

/// What a query's cookie says of its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// None was sent.
    #[default]
    Absent,
    /// Only the client's own.
    ClientOnly,
    /// Ours, made for this client and not too old.
    Valid,
    /// Not ours, or made for another client, or too old.
    Invalid,
}

impl State {
    /// As the log calls it; `None` without a cookie.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::ClientOnly => Some("client-only"),
            Self::Valid => Some("valid"),
            Self::Invalid => Some("invalid"),
        }
    }
}

/// The secrets that cookies are made with.
#[derive(Clone)]
pub struct Secrets {
    current: SipHasher24,
    also: Option<SipHasher24>,
    is_random: bool,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Cookies are made with `current`; those made with `also` are taken, too.
    pub fn new(current: &[u8; 16], also: Option<&[u8; 16]>) -> Self {
        let current = SipHasher24::new_with_key(current);
        Self { current, also: also.map(SipHasher24::new_with_key), is_random: false }
    }

    /// A secret of this process alone, made of random octets.
    pub fn random(octets: [u8; 16]) -> Self {
        Self { is_random: true, ..Self::new(&octets, None) }
    }

    /// Whether it is this process's alone.
    pub const fn is_random(&self) -> bool {
        self.is_random
    }

    /// Reads a file of secrets: 32 hexadecimal digits in a line, and perhaps a second such line.
    ///
    /// # Errors
    /// What is wrong, never showing the secret itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let mut next =
            || lines.next().map(|(number, line)| secret(line.trim(), number)).transpose();
        let current = next()?.ok_or("it is empty: write 32 hexadecimal digits in a line")?;
        let also = next()?;
        if let Some((number, _)) = lines.next() {
            return Err(format!("line {number} is one too many: two secrets are the most"));
        }
        Ok(Self::new(&current, also.as_ref()))
    }

    /// What the cookie of a query says (8 octets, or 16 to 40), and what its answer carries.
    pub fn check(
        &self,
        cookie: &[u8],
        client: IpAddr,
        now: UnixMillis,
    ) -> (State, [u8; COOKIE_BYTES]) {
        // Serial numbers of 32 bits (RFC 9018 §4.3).
        let now = now.secs() as u32;
        let client = client.to_canonical();
        let own = cookie.first_chunk().copied().unwrap_or([0; CLIENT_BYTES]);
        if cookie.len() <= CLIENT_BYTES {
            return (State::ClientOnly, self.make(own, client, now));
        }
        let Some(sent) = <&[u8; COOKIE_BYTES]>::try_from(cookie).ok() else {
            return (State::Invalid, self.make(own, client, now));
        };
        let [.., version, _, _, _, t0, t1, t2, t3, _, _, _, _, _, _, _, _] = *sent;
        let age = now.wrapping_sub(u32::from_be_bytes([t0, t1, t2, t3])).cast_signed();
        let in_time = version == VERSION && (-AHEAD..=LIFETIME).contains(&age);
        let is_made_with = |secret: &SipHasher24| sent.ends_with(&hash(secret, sent, client));
        if in_time && is_made_with(&self.current) {
            let answered = if age <= RENEWED_AFTER { *sent } else { self.make(own, client, now) };
            return (State::Valid, answered);
        }
        let is_valid = in_time && self.also.as_ref().is_some_and(is_made_with);
        let state = if is_valid { State::Valid } else { State::Invalid };
        (state, self.make(own, client, now))
    }

    /// The client's cookie and a new one of ours.
    fn make(&self, own: [u8; CLIENT_BYTES], client: IpAddr, now: u32) -> [u8; COOKIE_BYTES] {
        let mut cookie = [0; COOKIE_BYTES];
        let [c0, c1, c2, c3, c4, c5, c6, c7] = own;
        let [t0, t1, t2, t3] = now.to_be_bytes();
        if let Some(head) = cookie.first_chunk_mut() {
            *head = [c0, c1, c2, c3, c4, c5, c6, c7, VERSION, 0, 0, 0, t0, t1, t2, t3];
        }
        let hash = hash(&self.current, &cookie, client);
        if let Some(tail) = cookie.last_chunk_mut() {
            *tail = hash;
        }
        cookie
    }
}

/// RFC 9018 §4.4: SipHash-2-4 of all that lies before the hash, and the client's address.
fn hash(secret: &SipHasher24, cookie: &[u8; COOKIE_BYTES], client: IpAddr) -> [u8; 8] {
    const BEFORE: usize = COOKIE_BYTES - 8;
    let mut input = [0; BEFORE + 16];
    if let (Some(to), Some(from)) =
        (input.first_chunk_mut::<BEFORE>(), cookie.first_chunk::<BEFORE>())
    {
        *to = *from;
    }
    let length = match client {
        IpAddr::V4(v4) => {
            input.get_mut(BEFORE..BEFORE + 4).unwrap_or_default().copy_from_slice(&v4.octets());
            BEFORE + 4
        }
        IpAddr::V6(v6) => {
            input.get_mut(BEFORE..).unwrap_or_default().copy_from_slice(&v6.octets());
            BEFORE + 16
        }
    };
    secret.hash(input.get(..length).unwrap_or_default()).to_le_bytes()
}

fn secret(line: &str, number: usize) -> Result<[u8; 16], String> {
    let wrong = || format!("line {number} is not 32 hexadecimal digits");
    let digits = line.as_bytes();
    let mut secret = [0; 16];
    if digits.len() != 2 * secret.len() {
        return Err(wrong());
    }
    for (octet, pair) in secret.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0;
        for digit in pair {
            let digit = char::from(*digit).to_digit(16).ok_or_else(wrong)?;
            value = value << 4 | digit as u8;
        }
        *octet = value;
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn check(secrets: &str, cookie: &str, client: &str, secs: u64) -> (State, String) {
        let secrets = Secrets::parse(secrets).unwrap();
        let now = UnixMillis::from_secs(secs);
        let (state, answered) = secrets.check(&octets(cookie), client.parse().unwrap(), now);
        (state, answered.iter().map(|octet| format!("{octet:02x}")).collect())
    }

    const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    const CLIENT: &str = "198.51.100.100";
    const LEARNT: &str = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
    const LEARNT_AT: u64 = 1_559_731_985;

    #[test]
    fn a_client_learns_its_cookie_rfc_9018_appendix_a_1() {
        let (state, answered) = check(SECRET, "2464c4abcf10c957", CLIENT, LEARNT_AT);
        assert_eq!((state, answered.as_str()), (State::ClientOnly, LEARNT));
    }

    #[test]
    fn an_old_cookie_is_renewed_rfc_9018_appendix_a_2() {
        let (state, answered) = check(SECRET, LEARNT, CLIENT, 1_559_734_385);
        let renewed = "2464c4abcf10c957010000005cf7a871d4a564a1442aca77";
        assert_eq!((state, answered.as_str()), (State::Valid, renewed));
    }

    #[test]
    fn reserved_octets_are_hashed_as_they_come_rfc_9018_appendix_a_3() {
        let (client, sent) = ("203.0.113.203", "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5");
        assert_eq!(check(SECRET, sent, client, 1_559_727_985), (State::Valid, sent.to_owned()));
        // The appendix answers 6715 seconds later, which §4.3 has as too late; the new cookie is the same.
        let (state, answered) = check(SECRET, sent, client, 1_559_734_700);
        let renewed = "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e";
        assert_eq!((state, answered.as_str()), (State::Invalid, renewed));
    }

    #[test]
    fn a_secret_rolls_over_rfc_9018_appendix_a_4() {
        let (old, new) = ("dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962");
        let client = "2001:db8:220:1:59de:d0f4:8769:82b8";
        let sent = "22681ab97d52c298010000005cf7c57926556bd0934c72f8";
        let renewed = "22681ab97d52c298010000005cf7c609a6bb79d16625507a";
        let at = 1_559_741_961;
        let got = check(&format!("{new}\n{old}\n"), sent, client, at);
        assert_eq!(got, (State::Valid, renewed.to_owned()));
        assert_eq!(check(new, sent, client, at), (State::Invalid, renewed.to_owned()));
        // A new secret is at first only taken, until every server has it (RFC 9018 §5).
        let got = check(&format!("{old}\n{new}"), renewed, client, at);
        assert_eq!(got.0, State::Valid);
        assert_ne!(got.1, renewed);
    }

    #[test]
    fn cookies_have_their_time_rfc_9018_section_4_3() {
        for (age, state, kept) in [
            (0, State::Valid, true),
            (1800, State::Valid, true),
            (1801, State::Valid, false),
            (3600, State::Valid, false),
            (3601, State::Invalid, false),
            (-300, State::Valid, true),
            (-301, State::Invalid, false),
            (i64::from(u32::MAX) / 2, State::Invalid, false),
            // 32 bits later it is as it was: serial numbers wrap.
            (1 << 32, State::Valid, true),
        ] {
            let got = check(SECRET, LEARNT, CLIENT, LEARNT_AT.strict_add_signed(age));
            assert_eq!((got.0, got.1 == LEARNT), (state, kept), "{age}");
        }
    }

    #[test]
    fn a_cookie_is_one_clients() {
        for client in ["198.51.100.101", "2001:db8::1"] {
            assert_eq!(check(SECRET, LEARNT, client, LEARNT_AT).0, State::Invalid);
        }
        let mapped = check(SECRET, LEARNT, "::ffff:198.51.100.100", LEARNT_AT);
        assert_eq!(mapped, (State::Valid, LEARNT.to_owned()));
    }

    #[test]
    fn what_is_no_cookie_of_ours_is_invalid() {
        let at = LEARNT_AT;
        for (why, sent) in [
            ("another version", LEARNT.replacen("5701", "5702", 1)),
            ("another client cookie", LEARNT.replacen("24", "25", 1)),
            ("another time", LEARNT.replacen("5cf79f11", "5cf79f12", 1)),
            ("another hash", LEARNT.replacen("9480", "9481", 1)),
            ("16 octets", LEARNT[..32].to_owned()),
            ("40 octets", LEARNT.to_owned() + &"00".repeat(16)),
        ] {
            let (state, answered) = check(SECRET, &sent, CLIENT, at);
            assert_eq!((state, &answered[..16]), (State::Invalid, &sent[..16]), "{why}");
        }
    }

    #[test]
    fn files_of_secrets_are_read_or_refused() {
        for (text, why) in [
            ("", "it is empty"),
            ("\n \n", "it is empty"),
            ("e5e973e5", "line 1 is not 32"),
            ("e5e973e5a6b2a43f48e7dc849e37bfcg", "line 1 is not 32"),
            ("e5e973e5a6b2a43f48e7dc849e37bfc\u{e9}", "line 1 is not 32"),
            ("e5e973e5a6b2a43f48e7dc849e37bfcf\nx", "line 2 is not 32"),
        ] {
            assert!(Secrets::parse(text).unwrap_err().contains(why), "{text:?}");
        }
        let three = format!("{SECRET}\n").repeat(3);
        let why = Secrets::parse(&three).unwrap_err();
        assert!(why.contains("line 3") && !why.contains("e5e9"), "{why}");
        assert!(Secrets::parse(&format!("{SECRET}\r\n\n{SECRET}")).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_made_is_taken(secret: [u8; 16], own: [u8; 8], client: IpAddr, now in 0..u64::from(u32::MAX), age in 0..3600_u64) {
            let secrets = Secrets::new(&secret, None);
            let (_, made) = secrets.check(&own, client, UnixMillis::from_secs(now));
            prop_assert_eq!(made[..8].to_vec(), own.to_vec());
            let (state, _) = secrets.check(&made, client, UnixMillis::from_secs(now + age));
            prop_assert_eq!(state, State::Valid);
        }
    }
}
