//! The console: one page at `/` of the admin listener that asks the API, for operators at a browser.
//!
//! The page is the same for everybody and tells nothing of the node. Its policy lets a browser run and style with what
//! is in it, by a number used once, and call this API; nothing else can be loaded, framed or sent elsewhere.

use http::{HeaderValue, StatusCode};
use shared::io::admin::Answer;

use super::identity::random;

const PAGE: &str = include_str!("console.html");
/// What stands in the page for the number.
const NONCE: &str = "__NONCE__";

/// Answers `GET /`.
pub(super) fn page() -> Answer {
    let nonce = match random() {
        Ok(octets) => octets.map(|octet| format!("{octet:02x}")).concat(),
        Err(why) => return Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, &why),
    };
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    let page = PAGE.replace(NONCE, &nonce);
    let answer = Answer::new(StatusCode::OK, "text/html; charset=utf-8", page);
    Answer { policy: HeaderValue::try_from(policy).ok(), ..answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_runs_only_what_is_in_it() {
        let answer = page();
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let policy = answer.policy.unwrap().to_str().unwrap().to_owned();
        let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert_eq!((nonce.len(), text.matches(nonce).count()), (32, 2));
        assert_eq!(text.matches("<script").count() + text.matches("<style").count(), 2);
        assert!(!text.contains(NONCE) && page().body != answer.body, "a number used once");
        assert!(!policy.contains("unsafe") && policy.contains("default-src 'none'"), "{policy}");
        // Nothing from elsewhere, nothing that the policy would stop, no markup made of data.
        let but_names = text.replace("http://www.w3.org/2000/svg", "");
        for banned in [
            "http:",
            "https:",
            " src=",
            " style=",
            "innerHTML",
            "onclick=",
            "eval(",
            "@import",
            "url(",
        ] {
            assert!(!but_names.contains(banned), "{banned}");
        }
        // Every element that the script asks for is there, once.
        for id in text.split("$(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let count = text.matches(&format!("id=\"{id}\"")).count();
            assert!(count == 1 || id == "dc-", "{id}: {count}");
        }
    }
}
