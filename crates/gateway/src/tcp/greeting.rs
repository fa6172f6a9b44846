//! From an accepted socket to a connected game: who is it, may they, and the wait until the game accepts.
//!
//! A token is checked before anything is looked up, so that an answer tells nothing about a session to somebody who has no token for
//! it. What the client sends for the game stays in the kernel until the game is there.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use spawnpoint_core::{PlayerId, SessionId};
use spawnpoint_wire::link::Route;
use spawnpoint_wire::tcp::{TcpTerms, TokenRule};
use spawnpoint_wire::token::TokenError;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::preamble::{Preamble, Said};
use super::relay::TcpRelay;
use super::sniff::{Heard, Sniff, authorise, hear};
use super::{DISCARD_LIMIT, TCP_PARK, TOKEN_HOLD, TOKEN_PAUSE, error_line, proxy};
use crate::config::{CLIENT_WRITE, HALF_CLOSED, WATCH_PERIOD};
use crate::connect::{Dial, connect, refusal_for};
use crate::decide::{Refusal, Use};
use crate::game::{DialError, open};
use crate::relay::{Ended, ended};
use crate::say::last_words;
use crate::serve::Permit;
use crate::table::Admission;
use crate::{Inner, roster};

/// One session's way in.
pub(crate) struct Door {
    pub(crate) session: SessionId,
    pub(crate) terms: TcpTerms,
}

/// Whether this client must say who it is.
fn must_tell(rule: TokenRule, peer: SocketAddr) -> bool {
    match rule {
        TokenRule::OffLoopback => !peer.ip().to_canonical().is_loopback(),
        TokenRule::Always => true,
        TokenRule::Never => false,
    }
}

/// Why a connection ends before it is one.
#[derive(Debug)]
enum Turned {
    /// It is told why.
    Away(Refusal),
    /// It left by itself.
    Gone,
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self::Away(refusal)
    }
}

/// How a client began.
struct Introduction {
    /// Whose it is, if they said so.
    player: Option<PlayerId>,
    /// What it sent for the game already.
    early: Vec<u8>,
    /// It has not begun, or only just.
    open: Option<(Preamble, Said)>,
}

impl Introduction {
    const fn of(player: Option<PlayerId>, early: Vec<u8>) -> Self {
        Self {
            player,
            early,
            open: None,
        }
    }
}

/// Takes a connection to its game.
pub(crate) async fn welcome(
    inner: Arc<Inner>,
    door: Arc<Door>,
    mut client: TcpStream,
    peer: SocketAddr,
    permit: Permit,
) {
    let greeted = Box::pin(greet(&inner, &door, &mut client, peer, &permit)).await;
    match greeted {
        Ok((admission, game, introduction)) => {
            inner.table.counters.handshake("ok");
            let sniff = introduction.open.map(|(preamble, said)| {
                Box::new(Sniff {
                    since: (said != Said::Nothing).then(Instant::now),
                    preamble,
                    said,
                    session: door.session,
                    inner: inner.clone(),
                })
            });
            let relay = TcpRelay::new(client, game, &introduction.early, sniff, admission);
            // A task of its own, so that what the greeting needed is gone when the tunnel goes quiet.
            inner.tracker.spawn(relay);
        }
        Err(Turned::Away(refusal)) => {
            inner.table.counters.handshake(refusal.code().as_str());
            last_words(client, &error_line(&refusal), DISCARD_LIMIT).await;
        }
        Err(Turned::Gone) => inner.table.counters.handshake("client_gone"),
    }
}

async fn greet(
    inner: &Arc<Inner>,
    door: &Door,
    client: &mut TcpStream,
    peer: SocketAddr,
    permit: &Permit,
) -> Result<(Admission, TcpStream, Introduction), Turned> {
    let mut introduction = introduce(inner, door, client, peer).await?;
    let listener = client.local_addr().map_err(|_| Turned::Gone)?;
    loop {
        let dial = TcpDial {
            peer,
            listener,
            player: introduction.player.clone(),
            told: door.terms.proxy_protocol,
        };
        let address = peer.ip().to_canonical();
        let permit = Some(permit.clone());
        let route = inner.table.find(&*inner.link, door.session).await?;
        let admission = match &introduction.player {
            Some(player) => {
                roster::check(inner, &route, player).await?;
                inner
                    .table
                    .admit(door.session, player, address, permit, Use::Stream)?
            }
            None => inner
                .table
                .admit_unnamed(door.session, address, permit, Use::Stream)?,
        };
        let connected = wait(inner, door, client, admission, &dial, &mut introduction).await?;
        if let Some((admission, game)) = connected {
            return Ok((admission, game, introduction));
        }
        // They said who they are while they waited: their place is taken anew, as theirs.
    }
}

/// Hears how the client begins.
async fn introduce(
    inner: &Inner,
    door: &Door,
    client: &mut TcpStream,
    peer: SocketAddr,
) -> Result<Introduction, Turned> {
    let must = must_tell(door.terms.token, peer);
    let since = Instant::now();
    let mut preamble = Preamble::default();
    let mut said = Said::Nothing;
    loop {
        let limit = match said {
            _ if must => inner.config.token_limit,
            Said::Nothing => TOKEN_PAUSE,
            Said::Perhaps => TOKEN_HOLD,
            _ => inner.config.token_limit,
        };
        let heard = timeout_at(since + limit, hear(&mut preamble, client)).await;
        let ended = matches!(heard, Ok(Heard::End));
        match heard {
            Ok(Heard::Lost) => return Err(Turned::Gone),
            Ok(Heard::Said(Said::Token { token, rest })) => {
                let player = authorise(inner, door.session, &token)?;
                return Ok(Introduction::of(Some(player), rest));
            }
            Ok(Heard::Said(Said::TooLong)) => {
                return Err(Refusal::BadToken(TokenError::Invalid).into());
            }
            Ok(Heard::Said(Said::Game(bytes))) if !must => {
                return Ok(Introduction::of(None, bytes));
            }
            Ok(Heard::Said(Said::Game(_))) => return Err(Refusal::NoToken.into()),
            Ok(Heard::Said(more)) => said = more,
            Ok(Heard::End) | Err(_) => {
                return match said {
                    _ if must => Err(Refusal::NoToken.into()),
                    // Somebody looked whether anybody listens.
                    Said::Nothing if ended => Err(Turned::Gone),
                    Said::Nothing => Ok(Introduction {
                        player: None,
                        early: Vec::new(),
                        open: Some((preamble, said)),
                    }),
                    Said::Perhaps => Ok(Introduction::of(None, preamble.take())),
                    _ => Err(Refusal::NoToken.into()),
                };
            }
        }
    }
}

/// Waits for the game. `None`: meanwhile the client said who it is.
async fn wait(
    inner: &Arc<Inner>,
    door: &Door,
    client: &mut TcpStream,
    admission: Admission,
    dial: &TcpDial,
    introduction: &mut Introduction,
) -> Result<Option<(Admission, TcpStream)>, Turned> {
    let _parked = inner.table.counters.parked.count();
    let tunnel = admission.shared_tunnel();
    let mut connected = pin!(timeout(TCP_PARK, connect(admission, dial, &inner.config)));
    let mut begun = Instant::now();
    let mut ended_at = None;
    loop {
        let open = introduction.open.is_some();
        let hearing = async {
            match &mut introduction.open {
                Some((preamble, _)) => hear(preamble, client).await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            biased;
            close = poll_fn(|cx| tunnel.poll_order(cx)) => return Err(refusal_for(close).into()),
            done = &mut connected => {
                let (admission, game, _) = done.map_err(|_| Refusal::StillStarting)??;
                return Ok(Some((admission, game)));
            }
            heard = hearing, if open => heard,
            () = sleep(WATCH_PERIOD) => {
                look(client, &mut ended_at).await?;
                give_up(inner, introduction, begun)?;
                continue;
            }
        };
        match heard {
            Heard::Lost => return Err(Turned::Gone),
            Heard::Said(Said::Token { token, rest }) => {
                let player = authorise(inner, door.session, &token)?;
                *introduction = Introduction::of(Some(player), rest);
                return Ok(None);
            }
            Heard::Said(Said::Game(bytes)) => *introduction = Introduction::of(None, bytes),
            Heard::Said(Said::TooLong) => {
                return Err(Refusal::BadToken(TokenError::Invalid).into());
            }
            Heard::Said(more) => {
                if let Some((_, said)) = &mut introduction.open {
                    if *said == Said::Nothing {
                        begun = Instant::now();
                    }
                    *said = more;
                }
            }
            Heard::End => match introduction.open.take() {
                Some((_, Said::Nothing)) | None => return Err(Turned::Gone),
                Some((mut preamble, Said::Perhaps)) => introduction.early = preamble.take(),
                Some(_) => return Err(Refusal::NoToken.into()),
            },
        }
    }
}

/// Looks whether somebody who waits is still there.
async fn look(client: &TcpStream, ended_at: &mut Option<Instant>) -> Result<(), Turned> {
    match poll_fn(|cx| std::task::Poll::Ready(ended(client, cx))).await {
        Ended::Both => Err(Turned::Gone),
        // Perhaps it only has nothing more to say, perhaps it is gone: that cannot be told from here.
        Ended::Reading if ended_at.get_or_insert_with(Instant::now).elapsed() >= HALF_CLOSED => {
            Err(Refusal::StillStarting.into())
        }
        Ended::Reading | Ended::No => Ok(()),
    }
}

/// Waits no more for the rest of what somebody began to say.
fn give_up(inner: &Inner, introduction: &mut Introduction, begun: Instant) -> Result<(), Refusal> {
    match &mut introduction.open {
        Some((preamble, Said::Perhaps)) if begun.elapsed() >= TOKEN_HOLD => {
            introduction.early = preamble.take();
            introduction.open = None;
        }
        Some((_, Said::Begun)) if begun.elapsed() >= inner.config.token_limit => {
            return Err(Refusal::NoToken);
        }
        _ => {}
    }
    Ok(())
}

/// How a TCP game is connected.
struct TcpDial {
    peer: SocketAddr,
    listener: SocketAddr,
    /// Who it is, if they said so.
    player: Option<PlayerId>,
    /// The game is told who connects.
    told: bool,
}

impl Dial for TcpDial {
    const USE: Use = Use::Stream;
    type Leg = TcpStream;

    async fn dial(&self, route: &Route, address: SocketAddr) -> Result<TcpStream, DialError> {
        let mut game = open(address).await?;
        if self.told {
            let header = proxy::header(
                self.peer,
                self.listener,
                route.session,
                self.player.as_ref(),
                route.generation,
            );
            let header = header.ok_or_else(|| DialError::Refused("no PROXY header".into()))?;
            match timeout(CLIENT_WRITE, game.write_all(&header)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(DialError::Unreachable),
            }
        }
        Ok(game)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_must_say_who_they_are() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        for (peer, off_loopback) in [
            ("127.0.0.1", false),
            ("127.9.9.9", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("192.168.1.7", true),
            ("::ffff:10.0.0.1", true),
            ("2001:db8::1", true),
            ("0.0.0.0", true),
        ] {
            assert_eq!(must_tell(TokenRule::OffLoopback, at(peer)), off_loopback);
            assert!(must_tell(TokenRule::Always, at(peer)));
            assert!(!must_tell(TokenRule::Never, at(peer)));
        }
    }
}
