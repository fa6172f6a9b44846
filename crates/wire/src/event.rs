//! Events: what the resumable stream, `wait=` replies and progress frames carry. One JSON object each.

use serde::{Deserialize, Serialize};
use spawnpoint_core::lifecycle::Reason;
use spawnpoint_core::session::Phase;
use spawnpoint_core::{PlayerId, SessionId};
use utoipa::ToSchema;

use crate::text;

/// One event. `v` is the version of this form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Version of this form: 1.
    pub v: u32,
    /// Resume after this one with `Last-Event-ID`. Progress frames carry an empty id.
    pub id: String,
    /// When, RFC 3339 with milliseconds.
    pub at: String,
    /// The session it is about.
    #[serde(
        with = "text::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub session_id: Option<SessionId>,
    /// The ticket it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<String>,
    /// What happened; its `type` and fields stand beside the ones above.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventBody {
    /// The stream begins, or begins anew because the place to resume from is gone: `phase` is what holds now.
    Hello {
        /// The session's phase now, if the stream is about one.
        #[serde(
            with = "text::phase::option",
            default,
            skip_serializing_if = "Option::is_none"
        )]
        #[schema(value_type = Option<String>)]
        phase: Option<Phase>,
        /// Whether events may have been missed.
        resumed: bool,
    },
    /// It waits: a session for a game server, a ticket for a match.
    Queued {
        /// 1 is next.
        position: u32,
        /// `capacity`, `ports_exhausted` or `schedule`; of a ticket `players`.
        waiting_for: String,
        /// Of a ticket: seconds until the match, when somebody can say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        estimate_s: Option<u32>,
    },
    /// The ticket's match was formed; its session is there to connect to.
    Matched {},
    /// The phase changed.
    Phase {
        /// To this.
        #[serde(with = "text::phase")]
        #[schema(value_type = String)]
        phase: Phase,
        /// Of this incarnation.
        generation: u32,
    },
    /// A player connected.
    PlayerJoined {
        /// Who.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        player_id: PlayerId,
    },
    /// A player's last connection closed, or they were taken off the roster.
    PlayerLeft {
        /// Who.
        #[serde(with = "text")]
        #[schema(value_type = String)]
        player_id: PlayerId,
    },
    /// A cull is near; activity or an extend moves it.
    Warning {
        /// For what.
        #[serde(with = "text::reason")]
        #[schema(value_type = String)]
        reason: Reason,
        /// When, RFC 3339.
        cull_at: String,
    },
    /// Another incarnation takes over: reconnect to the same URL.
    Replaced {
        /// Its number.
        generation: u32,
    },
    /// Direct modes: the address to dial changed.
    Address {
        /// Host to dial.
        connect_host: String,
        /// Port to dial.
        connect_port: u16,
    },
    /// It is over.
    Ended {
        /// Why.
        #[serde(with = "text::reason")]
        #[schema(value_type = String)]
        reason: Reason,
    },
    /// The ticket is gone without a match: join again.
    Lost {
        /// Why: a problem code.
        code: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let e = Event {
            v: 1,
            id: "7-12".into(),
            at: "2026-01-01T00:00:00.000Z".into(),
            session_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().ok(),
            ticket_id: None,
            body: EventBody::Phase {
                phase: Phase::Running,
                generation: 2,
            },
        };
        let json = serde_json::to_string(&e).unwrap();
        assert_eq!(
            json,
            r#"{"v":1,"id":"7-12","at":"2026-01-01T00:00:00.000Z","session_id":"01890a5d-ac96-774b-bcce-b302099a8057","type":"phase","phase":"running","generation":2}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), e);
    }
}
