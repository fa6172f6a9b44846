//! Reading a request: is the path ours, what token does it bring, which subprotocols, may this page connect. Pure.

use http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, Uri};
use percent_encoding::{percent_decode, percent_decode_str};
use spawnpoint_core::SessionId;
use spawnpoint_wire::token::TokenClaims;

use crate::config::GatewayConfig;

/// Paths of ours; both mean the same.
const PREFIXES: [&str; 2] = ["/session/", "/ws/"];
/// Subprotocols that begin so are between client and gateway; games never see them.
const OURS: &str = "spawnpoint.";
/// The client understands progress frames before the game's own.
pub(crate) const PROGRESS: &str = "spawnpoint.progress";
/// Chosen when the game chooses none, because a browser that offered some fails if none is chosen.
pub(crate) const V1: &str = "spawnpoint.v1";
const TOKEN: &str = "spawnpoint.token.";
/// How every token of ours begins.
const TOKEN_FORM: &str = "v4.public.";

/// A request for one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The path's second segment, decoded: a session id, or the player's own id.
    pub(crate) name: String,
    /// What was cut off the path, as it was sent: `/session/<name>`.
    pub(crate) prefix: String,
    /// What the game sees, as it was sent, without our token.
    pub(crate) path_and_query: String,
    /// The token of the query.
    pub(crate) token: Option<String>,
}

/// Reads the request target; `None` if the path is not the gateway's.
pub(crate) fn target(uri: &Uri) -> Option<Target> {
    let path = uri.path();
    let rest = PREFIXES.iter().find_map(|p| path.strip_prefix(p))?;
    let raw = rest.split('/').next().filter(|s| !s.is_empty())?;
    let name = percent_decode_str(raw).decode_utf8().ok()?.into_owned();
    let cut = path.len() - rest.len() + raw.len();
    let (prefix, inner) = path.split_at_checked(cut)?;
    let (query, token) = strip_token(uri.query());
    let mut path_and_query = if inner.is_empty() { "/" } else { inner }.to_owned();
    if let Some(query) = query {
        path_and_query.push('?');
        path_and_query.push_str(&query);
    }
    Some(Target {
        name,
        prefix: prefix.to_owned(),
        path_and_query,
        token,
    })
}

/// Whether a path is the gateway's.
pub(crate) fn is_ours(path: &str) -> bool {
    PREFIXES.iter().any(|p| {
        path.strip_prefix(p)
            .is_some_and(|r| !r.is_empty() && !r.starts_with('/'))
    })
}

/// The query without `token`, everything else byte for byte; and the first token.
pub(crate) fn strip_token(query: Option<&str>) -> (Option<String>, Option<String>) {
    let Some(query) = query else {
        return (None, None);
    };
    let mut token = None;
    let mut kept: Vec<&str> = Vec::new();
    for pair in query.split('&') {
        if let Some(value) = token_of(pair.as_bytes()) {
            let value = percent_decode(value).decode_utf8_lossy().into_owned();
            token.get_or_insert(value);
        } else {
            kept.push(pair);
        }
    }
    let query = match &token {
        None => Some(query.to_owned()),
        Some(_) if kept.is_empty() => None,
        Some(_) => Some(kept.join("&")),
    };
    (query, token)
}

/// What a pair of a query says, still escaped, if it is our token. Bytes: an address that we pass on need not be text.
pub(crate) fn token_of(pair: &[u8]) -> Option<&[u8]> {
    let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
    let (key, value) = pair.split_at(at);
    let is_ours = percent_decode(key).eq(*b"token");
    is_ours.then(|| value.get(1..).unwrap_or_default())
}

/// What the client offered in `Sec-WebSocket-Protocol`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// [`PROGRESS`].
    pub(crate) progress: bool,
    /// [`V1`].
    pub(crate) v1: bool,
    /// A token.
    pub(crate) token: Option<String>,
    /// The game's own, in order.
    pub(crate) game: Vec<String>,
}

/// Reads the subprotocols; everything that begins with `spawnpoint.` is ours and never forwarded.
pub(crate) fn offer(headers: &HeaderMap) -> Offer {
    let mut offer = Offer::default();
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    for name in values
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|s| !s.is_empty())
    {
        if let Some(token) = name.strip_prefix(TOKEN) {
            offer.token.get_or_insert_with(|| token.to_owned());
        } else if name == PROGRESS {
            offer.progress = true;
        } else if name == V1 {
            offer.v1 = true;
        } else if !name.starts_with(OURS) {
            offer.game.push(name.to_owned());
        }
    }
    offer
}

/// The token of `Authorization: Bearer`, and whether that header is ours to strip: a game may have credentials of its own there
/// while our token comes another way.
pub(crate) fn bearer(headers: &HeaderMap, elsewhere: bool) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let ours = token.starts_with(TOKEN_FORM) || !elsewhere;
    (scheme.eq_ignore_ascii_case("bearer") && ours).then(|| token.to_owned())
}

/// The session that a verified token opens under this name: its session's id, or its player's.
pub(crate) fn session_of(name: &str, claims: &TokenClaims) -> Option<SessionId> {
    let named = name.parse::<SessionId>().is_ok_and(|id| id == claims.sid);
    (named || name == claims.sub.as_str()).then_some(claims.sid)
}

/// Whether a comma-separated header names this token.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case(wanted))
}

/// Whether this server answers to the request's `Host`: exactly one, and one of ours.
pub(crate) fn host_allowed(headers: &HeaderMap, config: &GatewayConfig) -> bool {
    one(headers, &HOST).is_ok_and(|h| h.is_some_and(|h| config.access.host_allowed(h)))
}

/// Whether a page of this origin may connect. No `Origin`: not a browser.
pub(crate) fn origin_allowed(headers: &HeaderMap, config: &GatewayConfig) -> bool {
    let host = one(headers, &HOST).ok().flatten();
    match one(headers, &ORIGIN) {
        Ok(None) => true,
        Ok(Some(origin)) => config.access.origin_allowed(origin, host),
        Err(Several) => false,
    }
}

/// A header was sent twice, or is no text: whoever reads it next could read another one than we did.
pub(crate) struct Several;

pub(crate) fn one<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h str>, Several> {
    let mut all = headers.get_all(name).iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    match (value.to_str(), all.next()) {
        (Ok(text), None) => Ok(Some(text)),
        _ => Err(Several),
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn read(uri: &str) -> Option<Target> {
        target(&uri.parse().unwrap())
    }

    #[test]
    fn the_game_sees_what_follows_the_session_without_the_token() {
        for (uri, prefix, inner, token) in [
            (
                format!("/session/{ID}"),
                format!("/session/{ID}"),
                "/",
                None,
            ),
            (format!("/ws/{ID}/"), format!("/ws/{ID}"), "/", None),
            (
                format!("/session/{ID}/a?b"),
                format!("/session/{ID}"),
                "/a?b",
                None,
            ),
            (
                format!("/session/{ID}?token=t"),
                format!("/session/{ID}"),
                "/",
                Some("t"),
            ),
            (
                format!("/ws/{ID}/a/b%20c?x=1&token=t&y=%26"),
                format!("/ws/{ID}"),
                "/a/b%20c?x=1&y=%26",
                Some("t"),
            ),
            (
                format!("/ws/{ID}/?%74oken=a%2Eb&token=c"),
                format!("/ws/{ID}"),
                "/",
                Some("a.b"),
            ),
            (
                format!("/ws/{ID}/?tokens=1&atoken=2&token"),
                format!("/ws/{ID}"),
                "/?tokens=1&atoken=2",
                Some(""),
            ),
            (format!("/ws/{ID}?"), format!("/ws/{ID}"), "/?", None),
            (
                format!("http://h/session/{ID}/../x"),
                format!("/session/{ID}"),
                "/../x",
                None,
            ),
        ] {
            let t = read(&uri).unwrap();
            assert_eq!(
                (
                    t.name.as_str(),
                    t.prefix,
                    t.path_and_query.as_str(),
                    t.token.as_deref()
                ),
                (ID, prefix, inner, token),
                "{uri}"
            );
        }
    }

    #[test]
    fn a_players_id_is_decoded_and_other_paths_are_not_ours() {
        assert_eq!(
            read("/session/a%2Fb%20%F0%9F%A7%82/x").unwrap().name,
            "a/b \u{1f9c2}"
        );
        for other in [
            "/",
            "/session",
            "/session/",
            "/session//x",
            "/ws",
            "/sessions/x",
            "/api/session/x",
            "/session/%ff",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert!(is_ours("/session/x") && is_ours("/ws/x/y") && is_ours("/session/%ff"));
        assert!(!is_ours("/session/") && !is_ours("/session//x") && !is_ours("/wss/x"));
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (k, v) in pairs {
            map.append(*k, v.parse().unwrap());
        }
        map
    }

    #[test]
    fn our_subprotocols_are_told_from_the_games() {
        let h = headers(&[
            ("sec-websocket-protocol", "spawnpoint.progress, chat"),
            (
                "sec-websocket-protocol",
                "spawnpoint.token.v4.public.abc,spawnpoint.v1,spawnpoint.later, superchat",
            ),
        ]);
        assert_eq!(
            offer(&h),
            Offer {
                progress: true,
                v1: true,
                token: Some("v4.public.abc".into()),
                game: vec!["chat".into(), "superchat".into()],
            }
        );
        assert_eq!(offer(&HeaderMap::new()), Offer::default());
    }

    #[test]
    fn a_bearer_that_is_not_ours_is_the_games() {
        let game = headers(&[("authorization", "Bearer xyz")]);
        assert_eq!(bearer(&game, true), None);
        assert_eq!(bearer(&game, false).as_deref(), Some("xyz"));
        assert_eq!(
            bearer(&headers(&[("authorization", "bearer v4.public.x")]), true).as_deref(),
            Some("v4.public.x")
        );
        assert_eq!(
            bearer(&headers(&[("authorization", "Basic eA==")]), false),
            None
        );
    }

    #[test]
    fn a_token_opens_its_session_and_its_players_name_only() {
        let claims = TokenClaims {
            sub: "user 1".parse().unwrap(),
            sid: ID.parse().unwrap(),
            fleet: "spice".parse().unwrap(),
            iat: 0,
            exp: 1,
        };
        assert_eq!(session_of(ID, &claims), Some(claims.sid));
        assert_eq!(session_of("user 1", &claims), Some(claims.sid));
        assert_eq!(session_of("user 2", &claims), None);
        assert_eq!(
            session_of("01890a5d-ac96-774b-bcce-b302099a8058", &claims),
            None
        );
    }

    #[test]
    fn a_header_sent_twice_is_nobodys() {
        let config = GatewayConfig::default();
        assert!(host_allowed(&headers(&[("host", "localhost")]), &config));
        assert!(!host_allowed(&HeaderMap::new(), &config));
        let two = headers(&[("host", "localhost"), ("host", "localhost")]);
        assert!(!host_allowed(&two, &config));
        assert!(
            origin_allowed(&headers(&[("host", "x")]), &config),
            "not a browser"
        );
        assert!(origin_allowed(
            &headers(&[("host", "a"), ("origin", "http://a")]),
            &config
        ));
        let two = headers(&[
            ("host", "a"),
            ("origin", "http://a"),
            ("origin", "http://evil"),
        ]);
        assert!(!origin_allowed(&two, &config));
    }
}
