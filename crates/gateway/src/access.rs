//! Reading a request: is the path ours, what token does it bring, which subprotocols, may this page connect. Pure.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
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
fn strip_token(query: Option<&str>) -> (Option<String>, Option<String>) {
    let Some(query) = query else {
        return (None, None);
    };
    let mut token = None;
    let mut kept: Vec<&str> = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decode_str(key).eq(*b"token") {
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
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

/// Whether this server answers to the request's `Host`. A name that somebody else's DNS points at us is how a web page reaches
/// servers on its visitor's machine, so names are listed; addresses cannot be rebound.
pub(crate) fn host_allowed(headers: &HeaderMap, config: &GatewayConfig) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(authority) = host.to_str() else {
        return false;
    };
    let name = host_name(authority);
    let name = name.strip_suffix('.').unwrap_or(name);
    if is_local_name(name) || address(name).is_some() {
        return true;
    }
    config.allowed_hosts.iter().any(|h| {
        h == "*" || host_name(h).eq_ignore_ascii_case(name) || h.eq_ignore_ascii_case(authority)
    })
}

/// Whether a page of this origin may connect. No `Origin`: not a browser. `null` is any sandboxed page and never allowed.
pub(crate) fn origin_allowed(headers: &HeaderMap, config: &GatewayConfig) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return true;
    };
    let Some((scheme, authority)) = origin.to_str().ok().and_then(|o| o.split_once("://")) else {
        return false;
    };
    if origins.next().is_some() || !matches!(scheme, "http" | "https") {
        return false;
    }
    let same =
        |other: &str| with_port(authority, scheme).eq_ignore_ascii_case(&with_port(other, scheme));
    if headers
        .get(HOST)
        .and_then(|h| h.to_str().ok())
        .is_some_and(same)
    {
        return true;
    }
    let name = host_name(authority);
    if config.loopback_origins
        && (is_local_name(name) || address(name).is_some_and(|a| a.is_loopback()))
    {
        return true;
    }
    config.allowed_origins.iter().any(|allowed| {
        allowed
            .trim_end_matches('/')
            .split_once("://")
            .is_some_and(|(s, a)| {
                s.eq_ignore_ascii_case(scheme)
                    && with_port(a, s).eq_ignore_ascii_case(&with_port(authority, scheme))
            })
    })
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` without the port.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            if name.contains(':') && !name.ends_with(']') {
                authority
            } else {
                name
            }
        }
        _ => authority,
    }
}

fn with_port(authority: &str, scheme: &str) -> String {
    let authority = authority.to_ascii_lowercase();
    if host_name(&authority).len() == authority.len() {
        let port = if scheme == "https" { 443 } else { 80 };
        format!("{authority}:{port}")
    } else {
        authority
    }
}

fn is_local_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

fn address(name: &str) -> Option<IpAddr> {
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    inner.unwrap_or(name).parse().ok()
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
    fn hosts_are_listed_names_or_addresses() {
        let config = GatewayConfig {
            allowed_hosts: vec!["games.example.com".into()],
            ..GatewayConfig::default()
        };
        let allowed = |h: &str| host_allowed(&headers(&[("host", h)]), &config);
        for ok in [
            "localhost:8080",
            "LOCALHOST",
            "a.localhost:1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "192.168.1.4",
            "games.example.com",
            "Games.Example.com:443",
            "games.example.com.",
        ] {
            assert!(allowed(ok), "{ok}");
        }
        for bad in [
            "evil.example.com",
            "localhost.evil.com",
            "games.example.com.evil.com",
            "127.0.0.1.nip.io",
            "",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
        assert!(!host_allowed(&HeaderMap::new(), &config));
        let two = headers(&[("host", "localhost"), ("host", "localhost")]);
        assert!(!host_allowed(&two, &config));
        let any = GatewayConfig {
            allowed_hosts: vec!["*".into()],
            ..GatewayConfig::default()
        };
        assert!(host_allowed(&headers(&[("host", "x.y")]), &any));
    }

    #[test]
    fn origins_are_the_same_listed_or_loopback_in_dev_mode_and_never_null() {
        let dev = GatewayConfig::default();
        let prod = GatewayConfig {
            loopback_origins: false,
            allowed_origins: vec!["https://play.example.com/".into()],
            ..dev.clone()
        };
        let check = |c: &GatewayConfig, host: &str, origin: &str| {
            origin_allowed(&headers(&[("host", host), ("origin", origin)]), c)
        };
        assert!(
            origin_allowed(&headers(&[("host", "x")]), &prod),
            "not a browser"
        );
        for c in [&dev, &prod] {
            assert!(check(c, "games.example.com", "https://games.example.com"));
            assert!(check(
                c,
                "games.example.com:443",
                "https://games.example.com"
            ));
            assert!(check(c, "127.0.0.1:8080", "http://127.0.0.1:8080"));
            for bad in [
                "null",
                "",
                "https://evil.com",
                "file://",
                "https://games.example.com.evil.com",
                "https://games.example.com:444",
                "chrome-extension://games.example.com",
            ] {
                assert!(!check(c, "games.example.com", bad), "{bad}");
            }
        }
        assert!(check(
            &prod,
            "games.example.com",
            "https://play.example.com"
        ));
        assert!(!check(
            &prod,
            "games.example.com",
            "http://play.example.com"
        ));
        for local in [
            "http://localhost:5173",
            "http://127.0.0.1:9",
            "http://[::1]:5173",
        ] {
            assert!(check(&dev, "localhost:8080", local), "{local}");
            assert!(!check(&prod, "localhost:8080", local), "{local}");
        }
        assert!(!check(&dev, "localhost:8080", "http://192.168.1.9"));
        let two = headers(&[
            ("host", "a"),
            ("origin", "http://a"),
            ("origin", "http://evil"),
        ]);
        assert!(!origin_allowed(&two, &dev));
    }
}
