//! AWS Signature Version 4, for S3-compatible buckets: what is put on a request so that the bucket knows by whom it is
//! sent.
//!
//! The request goes out in the one spelling that is signed ([`target`]): path and query with every octet encoded that need
//! not stand for itself. A server that signs what it received and one that decodes it first then come to the same.
//!
//! Signed are `host`, the `x-amz-*` fields and nothing else of the caller's choice but `more`: Range and conditions go
//! beside the signature, as its rules allow.

use std::fmt::{self, Write as _};

use aws_lc_rs::{digest, hmac};
use shared::time::UnixMillis;

/// What is signed in place of the hash of content that is not known before it is sent.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Access key id.
    pub access_key: String,
    secret_key: String,
    /// Session token, with temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key)
    }
}

impl Credentials {
    /// From the two or three lines of a file: access key id, secret access key, session token.
    ///
    /// # Errors
    /// What is wrong with it, without what it holds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let (access_key, secret_key, token) = match lines[..] {
            [access_key, secret_key] => (access_key, secret_key, None),
            [access_key, secret_key, token] => (access_key, secret_key, Some(token)),
            _ => {
                return Err(format!(
                    "{} lines where two are right, access key id and secret access key, or three: \
                     session token",
                    lines.len()
                ));
            }
        };
        let names = ["access key id", "secret access key", "session token"];
        for (name, line) in names.iter().zip([Some(access_key), Some(secret_key), token]) {
            let line = line.unwrap_or_default();
            if line.bytes().any(|byte| !byte.is_ascii_graphic()) {
                return Err(format!("the {name} holds a character that none has"));
            }
        }
        if access_key.contains('/') || access_key.contains('=') {
            return Err(
                "the first line is no access key id: the secret key is the second".to_owned()
            );
        }
        Ok(Self {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            session_token: token.map(str::to_owned),
        })
    }
}

/// Which part of the service's world a signature is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The region.
    pub region: String,
    /// The service, `s3` for buckets.
    pub service: String,
}

/// The content of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// None.
    Empty,
    /// What a client sends, as it comes.
    Streamed,
}

/// A request to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// `Host` as it is sent.
    pub host: &'a str,
    /// The path in the spelling of [`target`].
    pub path: &'a str,
    /// The query in the spelling of [`target`].
    pub query: Option<&'a str>,
    /// Its content.
    pub payload: Payload,
    /// Further fields to sign; names in lower case.
    pub more: &'a [(&'a str, &'a str)],
}

/// The fields that make a request a signed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// `Authorization`.
    pub authorization: String,
    /// `x-amz-date`.
    pub date: String,
    /// `x-amz-content-sha256`.
    pub content_sha256: &'static str,
}

/// The spelling in which a path and a query are sent and signed: octets are encoded but for letters, digits and `-_.~`,
/// in a path `/` too; what was encoded stays so, in upper case, where it must. An encoded `/` stays encoded: decoded, it
/// could make a path that the routes would not have let through.
pub fn target(path: &str, query: Option<&str>) -> (String, Option<String>) {
    let mut spelled = String::with_capacity(path.len());
    respell(&mut spelled, path, Part::Path);
    let query = query.map(|query| {
        let mut spelled = String::with_capacity(query.len());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if !spelled.is_empty() {
                spelled.push('&');
            }
            let (name, value) = match pair.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (pair, None),
            };
            respell(&mut spelled, name, Part::Query);
            if let Some(value) = value {
                spelled.push('=');
                respell(&mut spelled, value, Part::Query);
            }
        }
        spelled
    });
    (spelled, query)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Query,
}

fn respell(spelled: &mut String, text: &str, part: Part) {
    let hex = |digit: Option<&u8>| digit.and_then(|digit| char::from(*digit).to_digit(16));
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match (*byte, hex(bytes.get(at)), hex(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                at += 2;
                // Two digits of four bits make one octet.
                encode(spelled, (high << 4 | low) as u8);
            }
            // A form's space.
            (b'+', ..) if part == Part::Query => spelled.push_str("%20"),
            (b'/', ..) if part == Part::Path => spelled.push('/'),
            (byte, ..) => encode(spelled, byte),
        }
    }
}

fn encode(spelled: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        spelled.push(char::from(byte));
    } else {
        // Writing to a String cannot fail.
        let _ = write!(spelled, "%{byte:02X}");
    }
}

/// Signs a request at a time.
pub fn sign(
    request: &Request<'_>,
    credentials: &Credentials,
    scope: &Scope,
    now: UnixMillis,
) -> Signed {
    let date: String = now
        .to_string()
        .chars()
        .take_while(|character| *character != '.')
        .filter(|character| !matches!(character, '-' | ':'))
        .chain(['Z'])
        .collect();
    let day = date.get(..8).unwrap_or(&date);
    let content_sha256 = match request.payload {
        Payload::Empty => EMPTY,
        Payload::Streamed => UNSIGNED,
    };
    let mut fields: Vec<(&str, &str)> = vec![
        ("host", request.host),
        ("x-amz-content-sha256", content_sha256),
        ("x-amz-date", &date),
    ];
    if let Some(token) = &credentials.session_token {
        fields.push(("x-amz-security-token", token));
    }
    fields.extend(request.more);
    fields.sort_unstable();
    let signed_names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let signed_names = signed_names.join(";");

    let mut canonical = format!("{}\n", request.method);
    if scope.service == "s3" {
        canonical.push_str(request.path);
    } else {
        // All services but S3 sign the encoding of what is sent.
        for byte in request.path.bytes() {
            match byte {
                b'/' => canonical.push('/'),
                byte => encode(&mut canonical, byte),
            }
        }
    }
    canonical.push('\n');
    let mut pairs: Vec<(&str, &str)> = request
        .query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    for (at, (name, value)) in pairs.iter().enumerate() {
        let _ = write!(canonical, "{}{name}={value}", if at == 0 { "" } else { "&" });
    }
    canonical.push('\n');
    for (name, value) in &fields {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        let _ = writeln!(canonical, "{name}:{}", words.join(" "));
    }
    let _ = write!(canonical, "\n{signed_names}\n{content_sha256}");

    let Scope { region, service } = scope;
    let place = format!("{day}/{region}/{service}/aws4_request");
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let to_sign = format!("{ALGORITHM}\n{date}\n{place}\n{hash}");
    let first = format!("AWS4{}", credentials.secret_key);
    let mut key = hmac(first.as_bytes(), day);
    for part in [region.as_str(), service, "aws4_request"] {
        key = hmac(key.as_ref(), part);
    }
    let signature = hex(hmac(key.as_ref(), &to_sign).as_ref());
    let access_key = &credentials.access_key;
    let authorization = format!(
        "{ALGORITHM} Credential={access_key}/{place}, SignedHeaders={signed_names}, Signature={signature}"
    );
    Signed { authorization, date, content_sha256 }
}

fn hmac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Friday, 24 May 2013, midnight: the time of the examples in "Authenticating Requests: Using the Authorization
    /// Header" of the Amazon S3 API reference.
    const THEN: UnixMillis = UnixMillis::from_secs(1_369_353_600);

    fn example() -> (Credentials, Scope) {
        let credentials =
            Credentials::parse("AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n");
        let scope = Scope { region: "us-east-1".to_owned(), service: "s3".to_owned() };
        (credentials.unwrap(), scope)
    }

    fn get<'a>(
        path: &'a str,
        query: Option<&'a str>,
        more: &'a [(&'a str, &'a str)],
    ) -> Request<'a> {
        let host = "examplebucket.s3.amazonaws.com";
        Request { method: "GET", host, path, query, payload: Payload::Empty, more }
    }

    fn signature(request: &Request<'_>) -> String {
        let (credentials, scope) = example();
        let signed = sign(request, &credentials, &scope, THEN);
        assert_eq!((signed.date.as_str(), signed.content_sha256), ("20130524T000000Z", EMPTY));
        let (head, signature) = signed.authorization.rsplit_once('=').unwrap();
        assert!(head.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;"
        ));
        signature.to_owned()
    }

    /// The published examples: a range of an object, a bucket's lifecycle, a list of objects.
    #[test]
    fn the_examples_of_the_s3_reference() {
        assert_eq!(
            signature(&get("/test.txt", None, &[("range", "bytes=0-9")])),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert_eq!(
            signature(&get("/", Some("lifecycle"), &[])),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature(&get("/", Some("prefix=J&max-keys=2"), &[])),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn a_path_and_a_query_have_one_spelling() {
        for (path, spelled) in [
            ("/a/b.txt", "/a/b.txt"),
            ("/a%2fb", "/a%2Fb"),
            ("/a+b c:d@e(f)'!*", "/a%2Bb%20c%3Ad%40e%28f%29%27%21%2A"),
            ("/%7euser/%41", "/~user/A"),
            ("/%e2%82%ac", "/%E2%82%AC"),
            ("/100%", "/100%25"),
            ("/%zz%4", "/%25zz%254"),
            ("//a//", "//a//"),
        ] {
            assert_eq!(target(path, None).0, spelled);
        }
        for (query, spelled) in [
            ("", ""),
            ("a=b&c", "a=b&c"),
            ("a=1+2&b=1%2B2", "a=1%202&b=1%2B2"),
            ("&&a=/b?c=d&", "a=%2Fb%3Fc%3Dd"),
            ("%61=%41", "a=A"),
        ] {
            assert_eq!(target("/", Some(query)).1.unwrap(), spelled);
        }
    }

    #[test]
    fn a_session_token_is_signed_and_other_services_encode_twice() {
        let (plain, scope) = example();
        let with_token = Credentials { session_token: Some("token".to_owned()), ..plain.clone() };
        let request = get("/a%20b", None, &[]);
        let signed = sign(&request, &with_token, &scope, THEN);
        assert!(signed.authorization.contains("x-amz-date;x-amz-security-token, "));
        let other = Scope { service: "execute-api".to_owned(), ..scope.clone() };
        let twice = sign(&get("/a%2520b", None, &[]), &plain, &scope, THEN);
        assert_ne!(sign(&request, &plain, &other, THEN), sign(&request, &plain, &scope, THEN));
        assert_ne!(sign(&request, &plain, &other, THEN), twice);
        let streamed = Request { payload: Payload::Streamed, method: "PUT", ..request };
        assert_eq!(sign(&streamed, &plain, &scope, THEN).content_sha256, "UNSIGNED-PAYLOAD");
    }

    #[test]
    fn credentials_are_two_lines_or_three() {
        let parsed = Credentials::parse("id\r\nse/cret+\r\n\ntok==en\n").unwrap();
        assert_eq!((parsed.access_key.as_str(), parsed.secret_key.as_str()), ("id", "se/cret+"));
        assert_eq!(parsed.session_token.as_deref(), Some("tok==en"));
        assert_eq!(format!("{parsed:?}"), "Credentials(id)");
        for (text, why) in [
            ("", "0 lines"),
            ("id", "1 lines"),
            ("a\nb\nc\nd", "4 lines"),
            ("[default]\naws key", "the secret access key"),
            ("wJalrXUtnFEMI/K7\nAKIA", "no access key id"),
        ] {
            let error = Credentials::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest! {
        /// What was spelled once is spelled so for good, and nothing in it needs an encoding.
        #[test]
        fn the_spelling_is_stable(path in "/[ -~\u{e4}\u{20ac}]{0,40}", query in "[ -~\u{e4}]{0,40}") {
            let (path, query) = target(&path, Some(&query));
            prop_assert_eq!(target(&path, query.as_deref()), (path.clone(), query.clone()));
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.~%/&=".contains(c);
            prop_assert!(path.chars().chain(query.unwrap_or_default().chars()).all(allowed));
        }
    }
}
