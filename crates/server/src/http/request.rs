//! One request as the handlers see it: its parameters, who makes it, and its body read strictly.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use spawnpoint_core::limits::{DEFAULT_PAGE, MAX_BODY, MAX_PAGE, MAX_WAIT};
use spawnpoint_core::{Code, PlayerId, SessionId};
use spawnpoint_wire::access::Peer;
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::strict::{self, snake};

use super::{Ctx, Failure};
use crate::app::Addressing;

/// A request's head.
pub(crate) struct Call {
    pub(crate) headers: HeaderMap,
    pub(crate) peer: Option<IpAddr>,
    query: Vec<(String, String)>,
}

impl FromRequestParts<Ctx> for Call {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Ctx) -> Result<Self, Failure> {
        Ok(Self {
            headers: parts.headers.clone(),
            peer: parts.extensions.get::<Peer>().map(|p| p.0.ip()),
            query: parse_query(parts.uri.query().unwrap_or("")).ok_or_else(|| not_text("query"))?,
        })
    }
}

/// Escapes that are no text. Replaced by the character for it, they would name whoever is called so.
fn not_text(part: &str) -> Failure {
    Failure(Problem::new(
        Code::InvalidParameter,
        format!("the {part} has escapes (%XX) that are not UTF-8 text"),
    ))
}

/// What a path names, decoded.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Ctx> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, ctx: &Ctx) -> Result<Self, Failure> {
        // The framework's own refusal is not in the form that all of ours have.
        match axum::extract::Path::from_request_parts(parts, ctx).await {
            Ok(axum::extract::Path(named)) => Ok(Self(named)),
            Err(_) => Err(not_text("path")),
        }
    }
}

/// Query parameters, names in snake_case; `None` if they are not text.
pub(crate) fn parse_query(query: &str) -> Option<Vec<(String, String)>> {
    let decode = |s: &str| {
        let spaced = s.replace('+', " ");
        let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8();
        decoded.ok().map(Cow::into_owned)
    };
    query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
            Some((snake(&decode(k)?), decode(v)?))
        })
        .collect()
}

impl Call {
    /// A query parameter; the last one counts if it was sent twice.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .rev()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }

    /// Refuses parameters this call does not take, by name.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Failure> {
        match self
            .query
            .iter()
            .find(|(k, _)| !known.contains(&k.as_str()) && k != "token")
        {
            None => Ok(()),
            Some((k, _)) => {
                let shown: String = k.chars().take(64).collect();
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                Err(Failure(
                    Problem::new(
                        Code::InvalidParameter,
                        format!("the parameter {shown:?} is not known; this call takes: {known}"),
                    )
                    .on(shown),
                ))
            }
        }
    }

    /// A parameter of some type.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure>
    where
        T::Err: std::fmt::Display,
    {
        self.param(name)
            .map(|v| {
                v.parse().map_err(|e| {
                    Failure(
                        Problem::new(
                            Code::InvalidParameter,
                            format!("the parameter {name:?} is not valid: {e}"),
                        )
                        .on(name),
                    )
                })
            })
            .transpose()
    }

    /// A parameter that is true or false; there without a value it is true.
    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, Failure> {
        match self.param(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(Failure(
                Problem::new(
                    Code::InvalidParameter,
                    format!("{name} must be true or false"),
                )
                .on(name),
            )),
        }
    }

    /// `wait=`: seconds, bounded.
    pub(crate) fn wait(&self) -> Result<Option<Duration>, Failure> {
        let Some(seconds) = self.parsed::<f64>("wait")? else {
            return Ok(None);
        };
        if !(0.0..=MAX_WAIT.as_secs_f64()).contains(&seconds) {
            let detail = format!("wait must be 0 to {} seconds", MAX_WAIT.as_secs());
            return Err(Failure(
                Problem::new(Code::InvalidParameter, detail).on("wait"),
            ));
        }
        Ok(Some(Duration::from_secs_f64(seconds)))
    }

    /// `limit=`: page size, bounded.
    pub(crate) fn limit(&self) -> Result<usize, Failure> {
        match self.parsed::<usize>("limit")? {
            None => Ok(DEFAULT_PAGE),
            Some(n) if (1..=MAX_PAGE).contains(&n) => Ok(n),
            Some(_) => Err(Failure(
                Problem::new(
                    Code::InvalidParameter,
                    format!("limit must be 1 to {MAX_PAGE}"),
                )
                .on("limit"),
            )),
        }
    }

    /// A header as text.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// How players reach the public listener, as far as this request tells. The admin listener's own address is no use to them.
    pub(crate) fn addressing(&self, ctx: &Ctx) -> Addressing {
        let config = ctx.app.config.load();
        let own = self.header(header::HOST);
        let public;
        let host = if ctx.listener == super::Listener::Public {
            own
        } else {
            public = config.server.public.first().map(ToString::to_string);
            public.as_deref()
        };
        Addressing::new(config.server.public_url.as_deref(), host)
    }
}

/// A request's body, at most [`MAX_BODY`] bytes, whatever its content type says.
pub(crate) struct Raw(pub(crate) Bytes);

impl FromRequest<Ctx> for Raw {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &Ctx) -> Result<Self, Failure> {
        read(request.into_body()).await.map(Self)
    }
}

async fn read(body: Body) -> Result<Bytes, Failure> {
    let too_large = || {
        Failure(Problem::new(
            Code::BodyTooLarge,
            format!("a body may have at most {MAX_BODY} bytes"),
        ))
    };
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(all) => Ok(all.to_bytes()),
        Err(e) if e.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Err(e) if format!("{e:?}").contains("LengthLimit") => Err(too_large()),
        Err(_) => Err(Failure(Problem::new(
            Code::MalformedBody,
            "the body could not be read to its end",
        ))),
    }
}

impl Raw {
    /// The body as one of ours.
    pub(crate) fn parse<T: strict::Body>(&self) -> Result<T, Failure> {
        strict::parse(&self.0).map_err(Failure)
    }
}

/// A session id from a path.
pub(crate) fn session_id(text: &str) -> Result<SessionId, Failure> {
    // What cannot be an id is no session either: the same answer as for an unknown one.
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Failure(Problem::new(
            Code::SessionNotFound,
            format!("there is no session {shown:?}"),
        ))
    })
}

/// A player id from a field.
pub(crate) fn player_id(text: &str, field: &str) -> Result<PlayerId, Failure> {
    text.parse()
        .map_err(|e| Failure(Problem::new(Code::InvalidField, format!("{field} {e}")).on(field)))
}

/// A duration from a JSON value: seconds, or a text such as "90s", "10m", "1h30m".
pub(crate) fn duration(value: &serde_json::Value, field: &str) -> Result<Duration, Failure> {
    let bad = || {
        Failure(
            Problem::new(Code::InvalidField, format!("{field} must be a positive number of seconds or a text such as \"90s\" or \"10m\""))
                .on(field),
        )
    };
    let seconds = match value {
        serde_json::Value::Number(n) => n.as_f64().ok_or_else(bad)?,
        serde_json::Value::String(s) => match s.parse::<f64>() {
            Ok(n) => n,
            Err(_) => crate::config::parse_duration(s)
                .ok_or_else(bad)?
                .as_secs_f64(),
        },
        _ => return Err(bad()),
    };
    // A century is as good as any bound; it keeps arithmetic on deadlines far from its edges. What is less than the timeline's
    // millisecond would be 0 to it, and 0 means at once.
    if !seconds.is_finite() || !(0.001..=3.2e9).contains(&seconds) {
        return Err(bad());
    }
    Ok(Duration::from_secs_f64(seconds))
}
