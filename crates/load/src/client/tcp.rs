//! A match of lines over TCP: found, dialled, played, and found again where that is allowed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Client, beat_heart};
use crate::api::Way;
use crate::fault::{Fault, Phase};
use crate::lines::Lines;
use crate::plan::TokenLine;
use crate::play;
use crate::report::ms;
use crate::schedule::Beat;

/// A connection that ended this much before the match's time may have been lost: then the server is asked. In a short match it is what
/// [`SHORT`] allows, so that no loss is taken for an end.
const EARLY: Duration = Duration::from_secs(1);
/// A match that lasted less than this share of its time was cut short. Timers are not the same on two machines; a cut is no matter of
/// percents.
const SHORT: f64 = 0.95;

/// A game that answers.
struct Game {
    lines: Lines,
    /// Its first word.
    state: String,
}

impl Client {
    /// A match over TCP; `true` if it outlived its time.
    pub(super) async fn match_of_lines(
        &mut self,
        session: &str,
        mut way: Way,
        matched: Instant,
    ) -> Result<bool, Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let (mut game, dialled) = loop {
            match self
                .reach(session, &mut way, matched + plan.timeout, Some(matched))
                .await
            {
                Ok(reached) => break reached,
                Err(fault) => self.bear(fault).await?,
            }
        };
        self.failing_since = None;
        self.enter(Phase::Play);
        let start = Instant::now();
        // Who finds it open knows that it began after they dialled, whoever asked for it; who comes later does not. When they heard that it
        // was open says nothing: on a busy machine another one's word may have come first.
        let began_after = (game.state == "open").then_some(dialled);
        let ends = start + plan.match_duration;
        let first = plan.poll.mul_f64(self.dice.share());
        let mut terms = play::Terms {
            duration: plan.match_duration,
            deadline: ends + plan.margin,
            beat: Beat::new(start, first, plan.poll),
            round_trips: &shared.round_trips,
        };
        loop {
            let over = self.watch(session, &mut game, &mut terms).await?;
            let ended = Instant::now();
            let early = EARLY.min(plan.match_duration.mul_f64(1.0 - SHORT));
            if over == play::Over::Closed && ended + early < ends {
                if shared.through_gateway == Some(false) {
                    // Another instance has another port.
                    way.connect_port = None;
                }
                let back = self.back(session, &mut way, ended, terms.deadline).await?;
                if let Some(found) = back {
                    game = found;
                    continue;
                }
            }
            terms.beat.settle(ends, &shared.round_trips);
            if over == play::Over::Overdue && plan.wait_only {
                let margin = plan.margin.as_secs_f64();
                let detail = format!("the match still ran {margin} s after its time");
                return Err(Fault::new("not_ended", detail));
            }
            if let Some(began) = began_after
                && ended < began + plan.match_duration.mul_f64(SHORT)
            {
                let wanted = plan.match_duration.as_secs_f64();
                let had = (ended - began).as_secs_f64();
                let detail = format!("a match of {wanted} s ended after {had:.1} s");
                return Err(Fault::new("ended_early", detail));
            }
            self.row.play_ms = Some(ms(ended - start));
            return Ok(over == play::Over::Overdue);
        }
    }

    /// The way back to a match whose connection ended; `None` if the match has ended too.
    async fn back(
        &mut self,
        session: &str,
        way: &mut Way,
        lost_at: Instant,
        limit: Instant,
    ) -> Result<Option<Game>, Fault> {
        let mut first = true;
        while self.lives_on(session, lost_at, first).await? {
            first = false;
            match self.reach(session, way, limit, None).await {
                Ok((game, _)) => {
                    self.is_back();
                    return Ok(Some(game));
                }
                Err(fault) => {
                    self.enter(Phase::Play);
                    self.bear(fault).await?;
                }
            }
        }
        Ok(None)
    }

    async fn watch(
        &mut self,
        session: &str,
        game: &mut Game,
        terms: &mut play::Terms<'_>,
    ) -> Result<play::Over, Fault> {
        if self.shared.through_gateway == Some(false) {
            return tokio::select! {
                over = play::watch(&mut game.lines, &game.state, terms) => over,
                () = beat_heart(&mut self.api, session) => Ok(play::Over::Closed),
            };
        }
        // A player's device would let it go, too.
        self.api.rest();
        play::watch(&mut game.lines, &game.state, terms).await
    }

    /// Finds the game, dials it and hears its first word, all until `limit`; counted from `matched` if it is for the first time. Also when
    /// it was dialled.
    async fn reach(
        &mut self,
        session: &str,
        way: &mut Way,
        limit: Instant,
        matched: Option<Instant>,
    ) -> Result<(Game, Instant), Fault> {
        let shared = Arc::clone(&self.shared);
        let plan = &shared.plan;
        let left = || limit.saturating_duration_since(Instant::now());
        self.enter(Phase::Start);
        let (host, port) = loop {
            if let (Some(host), Some(port)) = (&way.connect_host, way.connect_port) {
                break (host.clone(), port);
            }
            if left().is_zero() {
                return Err(Fault::new("not_ready", "the game was not ready in time"));
            }
            let player = self.row.player_id.clone().unwrap_or_default();
            let found = self.api.way(session, &player, left()).await?;
            if let Some(token) = &found.token {
                self.api.credentials.token = Some(token.clone());
            }
            *way = found;
        };
        self.enter(Phase::Connect);
        let host = plan.host_override.clone().unwrap_or(host);
        let dialled = Instant::now();
        let stream = shared.dialer.dial(&host, port, false, left()).await?;
        let dial = dialled.elapsed();
        self.enter(Phase::Start);
        let mut lines = Lines::new(stream);
        let token = self.api.credentials.token.clone();
        let line = match plan.token_line {
            TokenLine::Always => token,
            TokenLine::Never => None,
            TokenLine::Auto if shared.through_gateway == Some(false) => None,
            TokenLine::Auto => token,
        };
        if let Some(token) = &line {
            play::tell(&mut lines, &format!("SPAWNPOINT {token}")).await?;
        }
        let forgiving = line.is_some() && shared.through_gateway.is_none();
        let first = play::first_word(&mut lines, forgiving);
        let state = tokio::time::timeout(left(), first)
            .await
            .unwrap_or_else(|_| Err(Fault::new("not_ready", "the game said nothing in time")))?;
        self.note_reached(matched, dial);
        Ok((Game { lines, state }, dialled))
    }
}
