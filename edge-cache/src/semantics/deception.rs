//! The guard against web cache deception.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

/// Web cache deception: a path that ends like a static file, answered with a page or with data. (`/account/x.css` made by an
/// application that ignores the rest of the path is somebody's account.)
pub(super) fn is_deceptive(path: &str, response: &HeaderMap) -> bool {
    const STATIC: [&str; 33] = [
        "7z", "avi", "avif", "bmp", "bz2", "css", "eot", "flac", "gif", "gz", "ico", "jpeg", "jpg",
        "js", "mjs", "mkv", "mp3", "mp4", "ogg", "otf", "pdf", "png", "rar", "svg", "tar", "tif",
        "tiff", "ttf", "webm", "webp", "woff", "woff2", "zip",
    ];
    let file = path.rsplit('/').next().unwrap_or_default();
    // `;` begins parameters that some applications cut off: `/account;x.css`.
    let Some((_, extension)) = file.rsplit_once('.') else { return false };
    if !STATIC.iter().any(|known| extension.eq_ignore_ascii_case(known)) {
        return false;
    }
    let content_type = response.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    [&b"text/html"[..], b"application/xhtml+xml", b"application/json", b"application/problem+json"]
        .iter()
        .any(|dynamic| essence.eq_ignore_ascii_case(dynamic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_under_static_names() {
        for (path, content_type, expected) in [
            ("/account/x.css", "text/html", true),
            ("/account;x.JPG", "Text/HTML ; charset=utf-8", true),
            ("/a.js", "application/json", true),
            ("/a.js", "text/javascript", false),
            ("/a.png", "", false),
            ("/a.html", "text/html", false),
            ("/a.json", "application/json", false),
            ("/css", "text/html", false),
            ("/x.css/account", "text/html", false),
            ("/", "text/html", false),
            ("", "text/html", false),
        ] {
            let mut response = HeaderMap::new();
            response.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_deceptive(path, &response), expected, "{path} {content_type}");
        }
        assert!(!is_deceptive("/a.css", &HeaderMap::new()));
    }
}
