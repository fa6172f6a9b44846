//! Reading a request for an HTTP game: by which door it comes, what in it may be a token, and whether a page elsewhere is behind
//! it. Pure.
//!
//! Two doors lead to a session. The path form (`/session/<id>/…`) works everywhere, takes a token with every request and knows no
//! cookie. The host form (`<session id>.<host>`) gives the session an origin of its own in the browser; there one cookie of ours
//! carries the token, and because browsers send cookies along by themselves, pages of other origins are told apart.

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use spawnpoint_core::SessionId;
use spawnpoint_wire::access::Access;

use crate::access::{self, Target, bearer, is_ours, one, strip_token, token_of};
use crate::config::GatewayConfig;
use crate::decide::Refusal;

/// Name of the cookie on a session's own host. Under TLS browsers enforce the prefix: no other host can plant it.
const SECURE_COOKIE: &str = "__Host-spawnpoint";
/// The same without TLS.
const PLAIN_COOKIE: &str = "spawnpoint";
/// Cookies of that name tried at most: each costs a signature check, and more than one means that somebody plants them.
const MAX_COOKIES: usize = 4;

/// How a request names its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// `/session/<name>` or `/ws/<name>`.
    Path,
    /// The session's own host name.
    Host(SessionId),
}

/// The door a request comes by; `None`: it is not for a game. On a session's own host everything is.
pub(crate) fn door(headers: &HeaderMap, uri: &Uri, access: &Access) -> Option<Door> {
    let own = one(headers, &HOST)
        .ok()
        .flatten()
        .and_then(|h| access.session_of_host(h));
    match own {
        Some(session) => Some(Door::Host(session)),
        None => is_ours(uri.path()).then_some(Door::Path),
    }
}

/// What the request asks of which session.
pub(crate) fn target(door: Door, uri: &Uri) -> Option<Target> {
    let Door::Host(session) = door else {
        return access::target(uri);
    };
    let (query, token) = strip_token(uri.query());
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    Some(Target {
        name: session.to_string(),
        prefix: String::new(),
        path_and_query: format!("{}{query}", uri.path()),
        token,
    })
}

/// Everything in a request that may be a token of ours, the most deliberate first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// In order.
    pub(crate) tokens: Vec<String>,
    /// `Authorization` is ours and not for the game.
    pub(crate) bearer_is_ours: bool,
    /// So many of `tokens`, the last ones, are cookies.
    pub(crate) cookies: usize,
}

/// Collects them. `offered`: from a WebSocket's subprotocols.
pub(crate) fn credentials(
    door: Door,
    target: &Target,
    offered: Option<&str>,
    headers: &HeaderMap,
    secure: bool,
) -> Credentials {
    let mut tokens: Vec<String> = target.token.iter().cloned().collect();
    tokens.extend(offered.map(ToOwned::to_owned));
    let cookies = match door {
        Door::Path => Vec::new(),
        Door::Host(_) => own_cookies(headers, secure),
    };
    let elsewhere = !tokens.is_empty() || !cookies.is_empty();
    let bearer = bearer(headers, elsewhere);
    let bearer_is_ours = bearer.is_some();
    tokens.extend(bearer);
    let count = cookies.len();
    tokens.extend(cookies);
    Credentials {
        tokens,
        bearer_is_ours,
        cookies: count,
    }
}

/// The name of our cookie.
pub(crate) const fn cookie_name(secure: bool) -> &'static str {
    if secure { SECURE_COOKIE } else { PLAIN_COOKIE }
}

/// The cookie that keeps a token: for this very host, out of reach of scripts, not sent along by other sites, gone with the token.
pub(crate) fn cookie(token: &str, seconds: i64, secure: bool) -> String {
    let name = cookie_name(secure);
    let secure = if secure { "; Secure" } else { "" };
    format!(
        "{name}={token}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        seconds.max(0)
    )
}

fn pairs(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value
        .as_bytes()
        .split(|b| *b == b';')
        .map(<[u8]>::trim_ascii)
}

pub(crate) fn is_ours_named(pair: &[u8]) -> bool {
    let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
    let name = name.trim_ascii();
    name == SECURE_COOKIE.as_bytes() || name == PLAIN_COOKIE.as_bytes()
}

fn own_cookies(headers: &HeaderMap, secure: bool) -> Vec<String> {
    let start = format!("{}=", cookie_name(secure));
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(pairs)
        .filter_map(|p| std::str::from_utf8(p).ok()?.strip_prefix(&start))
        .map(|v| v.trim_matches('"').to_owned())
        .take(MAX_COOKIES)
        .collect()
}

/// Takes out of the headers what is ours, on the way to the game: its own cookies stay byte for byte.
pub(crate) fn strip(headers: &mut HeaderMap, credentials: &Credentials, door: Door) {
    if credentials.bearer_is_ours {
        headers.remove(AUTHORIZATION);
    }
    if matches!(door, Door::Host(_)) {
        let all: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        if all.iter().flat_map(pairs).any(is_ours_named) {
            headers.remove(COOKIE);
            for value in all {
                let kept: Vec<&[u8]> = pairs(&value).filter(|p| !is_ours_named(p)).collect();
                let kept = kept.join(&b"; "[..]);
                if !kept.is_empty()
                    && let Ok(value) = HeaderValue::from_bytes(&kept)
                {
                    headers.append(COOKIE, value);
                }
            }
        }
    }
    strip_referer(headers);
}

/// A page opened with `?token=` names that address in the requests it makes. Bytes, and every such header: what is sent twice or is
/// no text is passed on too.
fn strip_referer(headers: &mut HeaderMap) {
    use http::header::REFERER;
    let all: Vec<HeaderValue> = headers.get_all(REFERER).iter().cloned().collect();
    if all
        .iter()
        .all(|v| without_query_token(v.as_bytes()).is_none())
    {
        return;
    }
    headers.remove(REFERER);
    for value in all {
        let kept = match without_query_token(value.as_bytes()) {
            None => Ok(value),
            Some(stripped) => HeaderValue::from_bytes(&stripped),
        };
        if let Ok(kept) = kept {
            headers.append(REFERER, kept);
        }
    }
}

/// The address without the pairs of its query that are our token; `None` when there are none.
fn without_query_token(address: &[u8]) -> Option<Vec<u8>> {
    let at = address.iter().position(|b| *b == b'?')?;
    let (before, query) = (address.get(..at)?, address.get(at + 1..)?);
    let pairs: Vec<&[u8]> = query.split(|b| *b == b'&').collect();
    if !pairs.iter().any(|p| token_of(p).is_some()) {
        return None;
    }
    let kept: Vec<&[u8]> = pairs
        .into_iter()
        .filter(|p| token_of(p).is_none())
        .collect();
    let mut stripped = before.to_vec();
    if !kept.is_empty() {
        stripped.push(b'?');
        stripped.extend_from_slice(&kept.join(&b'&'));
    }
    Some(stripped)
}

/// Whether this reads as exactly one request by everybody who may read it after us.
pub(crate) fn check_form(headers: &HeaderMap, uri: &Uri, method: &Method) -> Result<(), Refusal> {
    use http::header::TRANSFER_ENCODING;
    if *method == Method::CONNECT {
        return Err(Refusal::Malformed("CONNECT asks for a proxy"));
    }
    let host = one(headers, &HOST).ok().flatten().unwrap_or_default();
    if let Some(authority) = uri.authority()
        && !authority.as_str().eq_ignore_ascii_case(host)
    {
        return Err(Refusal::Malformed(
            "the address it asks for and its Host differ",
        ));
    }
    if !uri.path().starts_with('/') {
        return Err(Refusal::Malformed("its path does not begin with a slash"));
    }
    // Beside Transfer-Encoding hyper has dropped Content-Length already, and closes the connection after the answer.
    let encoding = headers.get(TRANSFER_ENCODING);
    let chunked = encoding.is_none_or(|e| e.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || headers.get_all(TRANSFER_ENCODING).iter().count() > 1 {
        return Err(Refusal::Malformed(
            "its Transfer-Encoding is something else than chunked",
        ));
    }
    Ok(())
}

/// Whether the host and the page that asks may be served at this door.
pub(crate) fn check_origin(
    door: Door,
    method: &Method,
    upgrade: bool,
    headers: &HeaderMap,
    config: &GatewayConfig,
) -> Result<(), Refusal> {
    if door == Door::Path {
        if !access::host_allowed(headers, config) {
            return Err(Refusal::Host);
        }
        return if access::origin_allowed(headers, config) {
            Ok(())
        } else {
            Err(Refusal::Origin)
        };
    }
    let changes = upgrade || !is_safe(method);
    if changes && asker(headers, config.secure) == Asker::Elsewhere {
        return Err(Refusal::ForeignPage);
    }
    Ok(())
}

/// Whether the cookie may speak for this request: for pages of this very host, and for whoever follows a link to it. A page of
/// another session is the same site to the browser, so that `SameSite` does not keep it out.
pub(crate) fn cookie_counts(headers: &HeaderMap, secure: bool) -> bool {
    let navigates = text(headers, "sec-fetch-mode") == Some("navigate");
    asker(headers, secure) != Asker::Elsewhere || (navigates && !headers.contains_key(ORIGIN))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// A page of this host, a person with a link, or no browser.
    Fine,
    /// A page of another origin.
    Elsewhere,
}

fn asker(headers: &HeaderMap, secure: bool) -> Asker {
    // Pages cannot set headers that begin with `Sec-`; a browser that sends it is believed.
    let site = text(headers, "sec-fetch-site");
    if matches!(site, Some("cross-site" | "same-site")) {
        return Asker::Elsewhere;
    }
    let host = one(headers, &HOST).ok().flatten();
    match one(headers, &ORIGIN) {
        Ok(None) => Asker::Fine,
        // A page with `Referrer-Policy: no-referrer` hides its origin even from itself.
        Ok(Some("null")) if site == Some("same-origin") => Asker::Fine,
        Ok(Some(origin)) => {
            let own = host.is_some_and(|h| Access::is_own_origin(origin, h));
            if own && (!secure || origin.starts_with("https://")) {
                Asker::Fine
            } else {
                Asker::Elsewhere
            }
        }
        Err(_) => Asker::Elsewhere,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Option<&'h str> {
    headers
        .get(HeaderName::from_static(name))
        .and_then(|v| v.to_str().ok())
}

fn is_safe(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    )
}

/// Whether the request asks to become a WebSocket.
pub(crate) fn is_websocket(method: &Method, headers: &HeaderMap) -> bool {
    use http::header::{CONNECTION, UPGRADE};
    *method == Method::GET
        && access::lists(headers, &UPGRADE, "websocket")
        && access::lists(headers, &CONNECTION, "upgrade")
}

/// Whether a person looks at the answer.
pub(crate) fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    use http::header::ACCEPT;
    matches!(*method, Method::GET | Method::HEAD)
        && headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.contains("text/html"))
}

/// The same address without our token, as a `Location` that stays on this host: `//x` would be another one.
pub(crate) fn without_token(path_and_query: &str) -> String {
    match path_and_query.as_bytes() {
        [b'/', b'/' | b'\\', ..] => format!("/.{path_and_query}"),
        _ => path_and_query.to_owned(),
    }
}
