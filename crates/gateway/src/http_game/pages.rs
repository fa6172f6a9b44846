//! The gateway's own words about an HTTP game: a problem document, or for somebody with a browser a page that says the same.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderValue, Response};
use http_body_util::Full;
use spawnpoint_core::{Code, code::Retry};

use super::bodies::Reply;
use crate::decide::Refusal;
use crate::handshake::problem;

/// A page of ours loads nothing, runs nothing and sits in no frame.
const CSP: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The answer to a refused request.
pub(crate) fn refused(refusal: &Refusal, page: bool) -> Response<Reply> {
    let document = problem(refusal);
    if !page {
        return document.map(Reply::Own);
    }
    let (mut head, _) = document.into_parts();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, CSP),
        (CACHE_CONTROL, "no-store"),
        // The address may hold a token.
        (REFERRER_POLICY, "no-referrer"),
    ] {
        head.headers.insert(name, HeaderValue::from_static(value));
    }
    let html = Bytes::from(html(refusal));
    Response::from_parts(head, Reply::Own(Full::new(html)))
}

fn headline(code: Code) -> &'static str {
    match code {
        Code::StillStarting | Code::GameUnreachable => "Starting…",
        Code::Unauthenticated => "A link with a token is needed",
        Code::InvalidCredentials => "This link has expired",
        Code::Forbidden => "This is somebody else's session",
        Code::SessionNotFound | Code::StartFailed => "This session is over",
        Code::ShuttingDown | Code::Unknown => "One moment…",
        Code::GameFailed | Code::GameTimeout => "The game server has a problem",
        _ => "This does not work",
    }
}

fn advice(code: Code) -> &'static str {
    match code {
        Code::StillStarting | Code::GameUnreachable | Code::ShuttingDown | Code::Unknown => {
            "This page tries again by itself."
        }
        Code::Unauthenticated | Code::InvalidCredentials => {
            "Open the session's link again from where you got it (the \"url\" that starting, joining or renewing the token answers \
             with). The session itself goes on."
        }
        Code::SessionNotFound | Code::StartFailed => "Start a new one.",
        _ => "",
    }
}

fn html(refusal: &Refusal) -> String {
    let code = refusal.code();
    // Waiting is worth it only for what passes by itself.
    let refresh = match (advice(code), code.retry()) {
        ("This page tries again by itself.", Retry::After(seconds)) => {
            format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">")
        }
        _ => String::new(),
    };
    let title = headline(code);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         {refresh}<title>{title}</title><style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 1rem;\
         color:#222;background:#fafafa}}h1{{font-size:1.5rem}}small{{color:#666}}@media(prefers-color-scheme:dark){{body{{color:#ddd;\
         background:#16181d}}small{{color:#999}}}}</style></head><body><h1>{title}</h1><p>{}.</p><p>{}</p><small>{code}</small></body></html>\n",
        escaped(&capitalised(&refusal.to_string())),
        advice(code),
    )
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next()
        .map(|c| c.to_uppercase().chain(rest).collect())
        .unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use spawnpoint_wire::token::TokenError;

    #[test]
    fn a_page_says_what_to_do_and_only_waiting_ones_come_again() {
        let expired = html(&Refusal::BadToken(TokenError::Expired));
        assert!(expired.contains("This link has expired") && expired.contains("Open the session"));
        assert!(!expired.contains("http-equiv"));
        let starting = html(&Refusal::StillStarting);
        assert!(starting.contains("http-equiv=\"refresh\" content=\"2\""));
        let odd = html(&Refusal::GameRefused("<b>".into()));
        assert!(odd.contains("&lt;b&gt;") && !odd.contains("<b>"));
    }
}
