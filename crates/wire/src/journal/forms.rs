//! Mirrors of core's types that know nothing of serde, by serde's `remote`: each names every field of its original, so that a field
//! which is added there does not compile here before it is written down too.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spawnpoint_core::lifecycle::{
    ActivityRule, Brake, EndRule, EndedBy, Joinable, OnCrash, Policy, Reason, Sight,
};
use spawnpoint_core::session::{
    Effect, Ending, Event, Exit, Heartbeat, Notice, Phase, Player, Session, Status, Warned,
};
use spawnpoint_core::time::Known;
use spawnpoint_core::{Code, FleetName, Generation, InstanceId, Moment, PlayerId, SessionId};

use crate::text;

/// A module for `#[serde(with = "...")]` of a type by its form, with `option` and `list` of it.
macro_rules! by_form {
    ($($module:ident: $type:ty = $form:ident;)*) => { $(
        #[doc = concat!("Serde for [`", stringify!($type), "`] by its form.")]
        pub(crate) mod $module {
            #[allow(unused_imports, reason = "one list for all")]
            use super::*;

            pub(crate) fn serialize<S: Serializer>(value: &$type, s: S) -> Result<S::Ok, S::Error> {
                $form::serialize(value, s)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<$type, D::Error> {
                $form::deserialize(d)
            }

            /// One that is there.
            #[derive(Serialize)]
            struct Shown<'a>(#[serde(with = "self")] &'a $type);

            /// One that is there.
            #[derive(Deserialize)]
            struct Read(#[serde(with = "self")] $type);

            #[allow(dead_code, reason = "not every form is optional somewhere")]
            pub(crate) mod option {
                #[allow(unused_imports, reason = "one list for all")]
                use super::*;

                pub(crate) fn serialize<S: Serializer>(
                    value: &Option<$type>,
                    s: S,
                ) -> Result<S::Ok, S::Error> {
                    value.as_ref().map(Shown).serialize(s)
                }

                pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                    d: D,
                ) -> Result<Option<$type>, D::Error> {
                    Ok(Option::<Read>::deserialize(d)?.map(|r| r.0))
                }
            }

            #[allow(dead_code, reason = "not every form is in a list somewhere")]
            pub(crate) mod list {
                #[allow(unused_imports, reason = "one list for all")]
                use super::*;

                pub(crate) fn serialize<S: Serializer>(
                    value: &[$type],
                    s: S,
                ) -> Result<S::Ok, S::Error> {
                    s.collect_seq(value.iter().map(Shown))
                }

                pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                    d: D,
                ) -> Result<Vec<$type>, D::Error> {
                    Ok(Vec::<Read>::deserialize(d)?.into_iter().map(|r| r.0).collect())
                }
            }
        }
    )* };
}

by_form! {
    moment: Moment = MomentForm;
    generation: Generation = GenerationForm;
    sight_known: Known<()> = SeenForm;
    known_moment: Known<Moment> = FactsForm;
    policy: Policy = PolicyForm;
    player: Player = PlayerForm;
    ending: Ending = EndingForm;
    warned: Warned = WarnedForm;
    exit: Exit = ExitForm;
    session: Session = SessionForm;
    event: Event = EventForm;
    heartbeat: Heartbeat = HeartbeatForm;
    effect: Effect = EffectForm;
    notice: Notice = NoticeForm;
    brake: Brake = BrakeForm;
}

/// Serde for [`Code`] by its stable spelling.
mod code {
    use super::{Code, Deserialize, Deserializer, Serializer};
    use serde::de::Error;

    pub(super) fn serialize<S: Serializer>(value: &Code, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(value.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Code, D::Error> {
        parse(&String::deserialize(d)?)
    }

    fn parse<E: Error>(text: &str) -> Result<Code, E> {
        let mut all = Code::ALL.iter().copied();
        all.find(|c| c.as_str() == text)
            .ok_or_else(|| E::custom(format_args!("{text:?} is not a known code")))
    }

    pub(crate) mod option {
        use super::{Code, Deserialize, Deserializer, Serializer, parse};

        pub(crate) fn serialize<S: Serializer>(
            value: &Option<Code>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(code) => s.serialize_str(code.as_str()),
                None => s.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<Code>, D::Error> {
            let text = Option::<String>::deserialize(d)?;
            text.map(|t| parse(&t)).transpose()
        }
    }
}
pub(crate) use code::option as code_option;

/// Serde for what is behind an [`Arc`].
mod shared_policy {
    use super::{Arc, Deserializer, Policy, Serializer, policy};

    pub(super) fn serialize<S: Serializer>(value: &Arc<Policy>, s: S) -> Result<S::Ok, S::Error> {
        policy::serialize(value, s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Arc<Policy>, D::Error> {
        policy::deserialize(d).map(Arc::new)
    }
}

/// Milliseconds on the timeline of the process that wrote it.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Moment")]
struct MomentForm(i64);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Generation")]
struct GenerationForm(u32);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Known<()>", rename_all = "snake_case")]
enum SeenForm {
    Is(()),
    Unknown {
        #[serde(with = "moment")]
        since: Moment,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Known<Moment>", rename_all = "snake_case")]
enum FactsForm {
    Is(#[serde(with = "moment")] Moment),
    Unknown {
        #[serde(with = "moment")]
        since: Moment,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ActivityRule", rename_all = "snake_case")]
enum ActivityForm {
    ClientData,
    Any,
    Heartbeat,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OnCrash", rename_all = "snake_case")]
enum OnCrashForm {
    Replace,
    Restart,
    End,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "EndRule", rename_all = "snake_case")]
enum EndRuleForm {
    Owner,
    Any,
    All,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Joinable", rename_all = "snake_case")]
enum JoinableForm {
    Open,
    Invite,
    Closed,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Sight", rename_all = "snake_case")]
enum SightForm {
    Gateway,
    Requests,
    Direct,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Policy")]
struct PolicyForm {
    heartbeat: Duration,
    idle: Option<Duration>,
    max: Option<Duration>,
    max_limit: Option<Duration>,
    queue: Duration,
    boot: Duration,
    join: Option<Duration>,
    reconnect: Duration,
    warnings: Vec<Duration>,
    grace: Duration,
    #[serde(with = "ActivityForm")]
    activity: ActivityRule,
    #[serde(with = "OnCrashForm")]
    on_crash: OnCrash,
    #[serde(with = "EndRuleForm")]
    end_by: EndRule,
    #[serde(with = "JoinableForm")]
    joinable: Joinable,
    #[serde(with = "SightForm")]
    sight: Sight,
    max_players: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Player")]
struct PlayerForm {
    #[serde(with = "text")]
    id: PlayerId,
    #[serde(with = "moment")]
    joined_at: Moment,
    connections: u32,
    #[serde(with = "moment::option")]
    gone_since: Option<Moment>,
    #[serde(with = "moment::option")]
    lease_until: Option<Moment>,
    #[serde(with = "moment::option")]
    last_active: Option<Moment>,
    inactive: bool,
    #[serde(with = "moment::option")]
    inactive_at: Option<Moment>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ending")]
struct EndingForm {
    #[serde(with = "text::reason")]
    reason: Reason,
    #[serde(with = "text::ended_by")]
    by: EndedBy,
    #[serde(with = "code_option")]
    code: Option<Code>,
    #[serde(with = "moment")]
    at: Moment,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Warned")]
struct WarnedForm {
    #[serde(with = "moment")]
    cull_at: Moment,
    threshold: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Exit")]
struct ExitForm {
    code: Option<i32>,
    signal: Option<i32>,
    oom: bool,
    never_ran: bool,
    lost: bool,
    #[serde(with = "moment")]
    at: Moment,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Session")]
struct SessionForm {
    #[serde(with = "text")]
    id: SessionId,
    #[serde(with = "text")]
    fleet: FleetName,
    #[serde(with = "text::phase")]
    phase: Phase,
    #[serde(with = "generation")]
    generation: Generation,
    #[serde(with = "text::option")]
    instance: Option<InstanceId>,
    #[serde(with = "shared_policy")]
    policy: Arc<Policy>,
    #[serde(with = "text::option")]
    owner: Option<PlayerId>,
    #[serde(with = "player::list")]
    roster: Vec<Player>,
    #[serde(with = "moment")]
    created_at: Moment,
    #[serde(with = "moment")]
    queue_deadline: Moment,
    #[serde(with = "moment::option")]
    granted_at: Option<Moment>,
    #[serde(with = "moment::option")]
    start_deadline: Option<Moment>,
    #[serde(with = "moment::option")]
    ready_at: Option<Moment>,
    #[serde(with = "moment::option")]
    first_ready_at: Option<Moment>,
    #[serde(with = "moment::option")]
    first_joined_at: Option<Moment>,
    #[serde(with = "moment::option")]
    max_at: Option<Moment>,
    #[serde(with = "moment::option")]
    max_limit_at: Option<Moment>,
    extends: u32,
    #[serde(with = "moment::option")]
    server_active: Option<Moment>,
    #[serde(with = "moment::option")]
    busy_until: Option<Moment>,
    #[serde(with = "moment::option")]
    emptied_at: Option<Moment>,
    #[serde(with = "sight_known")]
    sight: Known<()>,
    #[serde(with = "moment::list")]
    crashes: Vec<Moment>,
    #[serde(with = "warned::option")]
    warned: Option<Warned>,
    #[serde(with = "ending::option")]
    ending: Option<Ending>,
    #[serde(with = "exit::option")]
    exit: Option<Exit>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Event", rename_all = "snake_case")]
enum EventForm {
    Gated(#[serde(with = "text")] InstanceId),
    Granted {
        #[serde(with = "text")]
        instance: InstanceId,
        #[serde(with = "generation")]
        generation: Generation,
    },
    Accepting(#[serde(with = "generation")] Generation),
    Exited(
        #[serde(with = "generation")] Generation,
        #[serde(with = "exit")] Exit,
    ),
    CannotStart(#[serde(with = "code")] Code),
    Join(#[serde(with = "text")] PlayerId),
    Leave(#[serde(with = "text")] PlayerId),
    Connections(#[serde(with = "text")] PlayerId, u32),
    SightLost,
    SightRegained,
    Data(
        #[serde(with = "text::option")] Option<PlayerId>,
        #[serde(with = "moment")] Moment,
    ),
    Heartbeat(#[serde(with = "heartbeat")] Heartbeat),
    Extend {
        #[serde(with = "moment")]
        to: Moment,
        raise: bool,
    },
    End {
        #[serde(with = "text::reason")]
        reason: Reason,
        #[serde(with = "text::ended_by")]
        by: EndedBy,
    },
    Tick {
        hold: bool,
    },
    Recorded,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Status", rename_all = "snake_case")]
enum StatusForm {
    Active,
    Inactive,
    Busy,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Heartbeat")]
struct HeartbeatForm {
    #[serde(with = "text::option")]
    player: Option<PlayerId>,
    #[serde(with = "StatusForm")]
    status: Status,
    idle: Duration,
    ttl: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Effect", rename_all = "snake_case")]
enum EffectForm {
    Save,
    Acquire {
        #[serde(with = "generation")]
        generation: Generation,
        in_place: bool,
        #[serde(with = "moment")]
        not_before: Moment,
    },
    Stop(#[serde(with = "text")] InstanceId),
    Record,
    Announce(#[serde(with = "notice")] Notice),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Notice", rename_all = "snake_case")]
enum NoticeForm {
    Phase(#[serde(with = "text::phase")] Phase),
    PlayerJoined(#[serde(with = "text")] PlayerId),
    PlayerLeft(#[serde(with = "text")] PlayerId),
    Warning {
        #[serde(with = "text::reason")]
        reason: Reason,
        #[serde(with = "moment")]
        cull_at: Moment,
    },
    Replaced(#[serde(with = "generation")] Generation),
    Ended(#[serde(with = "text::reason")] Reason),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Brake")]
struct BrakeForm {
    #[serde(with = "moment::option")]
    held_since: Option<Moment>,
    #[serde(with = "moment::option")]
    known_since: Option<Moment>,
}
