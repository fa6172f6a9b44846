//! Who is calling, from what they can prove.

use std::net::IpAddr;
use std::num::NonZeroU32;

use axum::http::header;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};
use spawnpoint_core::Code;
use spawnpoint_wire::problem::Problem;
use spawnpoint_wire::token::TokenError;
use subtle::ConstantTimeEq;

use super::request::Call;
use super::{Ctx, Failure, Listener};
use crate::app::Caller;
use crate::config::ServerConfig;

/// Guests' starts by address.
pub(crate) struct GuestLimiter(DefaultKeyedRateLimiter<IpAddr>);

/// Addresses remembered before old ones are dropped.
const MAX_ADDRESSES: usize = 10_000;

impl GuestLimiter {
    pub(crate) fn new(per_minute: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
        Self(RateLimiter::keyed(quota))
    }

    /// Counts one start of a guest.
    pub(crate) fn check(&self, peer: Option<IpAddr>) -> Result<(), Failure> {
        if self.0.len() > MAX_ADDRESSES {
            self.0.retain_recent();
        }
        let Some(peer) = peer else { return Ok(()) };
        self.0.check_key(&block(peer)).map_err(|_| {
            Failure(Problem::new(
                Code::RateLimited,
                "too many games were started from this address; wait a minute",
            ))
        })
    }
}

/// One household is one address: an IPv6 /64, an IPv4 address.
fn block(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => {
                let mut bytes = v6.octets();
                if let Some(low) = bytes.get_mut(8..) {
                    low.fill(0);
                }
                IpAddr::from(bytes)
            }
        },
        v4 => v4,
    }
}

impl Call {
    fn bearer(&self) -> Option<&str> {
        let value = self.header(header::AUTHORIZATION)?;
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(rest.trim())
    }

    /// Who is calling. A credential that is sent must be right, also where none would be needed.
    pub(crate) fn caller(&self, ctx: &Ctx, body_token: Option<&str>) -> Result<Caller, Failure> {
        let config = ctx.app.config.load();
        let server = &config.server;
        let sent = self
            .bearer()
            .or(body_token)
            .or_else(|| self.param("token"))
            .filter(|t| !t.is_empty());
        match sent {
            Some(secret) => self.known(ctx, server, secret),
            None => anonymous(ctx, server).map_err(Failure),
        }
    }

    fn known(&self, ctx: &Ctx, server: &ServerConfig, secret: &str) -> Result<Caller, Failure> {
        if let Some(name) = key_name(server, secret) {
            return Ok(match ctx.listener {
                Listener::Admin => Caller::Operator,
                _ => Caller::Backend { name },
            });
        }
        let now = ctx.app.clock.wall(ctx.app.clock.now()).div_euclid(1000);
        match ctx.app.keys.ring.verify(secret, now) {
            Ok(claims) => Ok(Caller::Player(claims)),
            Err(e) => Err(Failure(token_problem(e))),
        }
    }
}

/// The problem for a token.
pub(crate) fn token_problem(e: TokenError) -> Problem {
    let detail = match e {
        TokenError::Invalid => "the key or token is not valid here".to_owned(),
        other => other.to_string(),
    };
    Problem::new(Code::InvalidCredentials, detail)
}

/// The name of the backend key with this secret. Every key is compared, in constant time, so that timing tells nothing.
fn key_name(server: &ServerConfig, secret: &str) -> Option<String> {
    let sent = Sha256::digest(secret.as_bytes());
    let mut found = None;
    for key in &server.keys {
        let own = Sha256::digest(key.secret.as_bytes());
        if bool::from(own.ct_eq(&sent)) {
            found = Some(key.name.clone());
        }
    }
    found
}

fn anonymous(ctx: &Ctx, server: &ServerConfig) -> Result<Caller, Problem> {
    let needs = |what: &str| {
        Problem::new(
            Code::Unauthenticated,
            format!("send {what} as Authorization: Bearer ..."),
        )
    };
    match ctx.listener {
        Listener::Admin
            if server.keys.is_empty() && server.admin.iter().all(|a| a.ip().is_loopback()) =>
        {
            Ok(Caller::Operator)
        }
        Listener::Admin => Err(needs("a backend key")),
        Listener::Public if server.dev_mode() => Ok(Caller::Backend {
            name: "dev".to_owned(),
        }),
        Listener::Public if server.guests => Ok(Caller::Guest),
        Listener::Public => Err(needs("a backend key or the session's token")),
        Listener::Sdk => Err(needs("the instance's own token (SPAWNPOINT_TOKEN)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_is_one_address() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff".parse().unwrap();
        let c: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(block(a), block(b));
        assert_ne!(block(a), block(c));
        assert_eq!(
            block("::ffff:10.0.0.1".parse().unwrap()),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn guests_are_limited_by_address() {
        let limiter = GuestLimiter::new(2);
        let peer = Some("10.0.0.1".parse().unwrap());
        assert!(limiter.check(peer).is_ok());
        assert!(limiter.check(peer).is_ok());
        assert!(limiter.check(peer).is_err());
        assert!(limiter.check(Some("10.0.0.2".parse().unwrap())).is_ok());
    }
}
