//! The mirrors of a fleet's plan and of a queue's matches, like those of a session in [`forms`](super::forms).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use spawnpoint_core::fleet::{Failures, InFlight, Plan, Pool, PoolSpec, Warm};
use spawnpoint_core::matching::{Candidate, Limit, Match, Proposal, Region, Rules};
use spawnpoint_core::time::Known;
use spawnpoint_core::{InstanceId, Moment, TicketId};

use super::forms::moment;
use crate::text;

macro_rules! lists {
    ($($module:ident: $type:ty = $form:literal;)*) => { $(
        #[doc = concat!("Serde for a list of [`", stringify!($type), "`].")]
        mod $module {
            use super::*;

            #[derive(Serialize)]
            struct Shown<'a>(#[serde(with = $form)] &'a $type);

            #[derive(Deserialize)]
            struct Read(#[serde(with = $form)] $type);

            pub(super) fn serialize<S: Serializer>(
                value: &[$type],
                s: S,
            ) -> Result<S::Ok, S::Error> {
                s.collect_seq(value.iter().map(Shown))
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<Vec<$type>, D::Error> {
                Ok(Vec::<Read>::deserialize(d)?.into_iter().map(|r| r.0).collect())
            }
        }
    )* };
}

lists! {
    warm: Warm = "WarmForm";
    matches: Match = "MatchForm";
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PoolSpec")]
pub(super) struct SpecForm {
    warm: u32,
    max_age: Option<Duration>,
    max_instances: Option<u32>,
    template: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Warm")]
struct WarmForm {
    #[serde(with = "text")]
    id: InstanceId,
    ready: bool,
    #[serde(with = "moment")]
    started_at: Moment,
    template: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Pool")]
struct PoolForm {
    #[serde(with = "warm")]
    warm: Vec<Warm>,
    claimed: u32,
    stopping: u32,
    queued: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Known<Pool>", rename_all = "snake_case")]
pub(super) enum SeenPoolForm {
    Is(#[serde(with = "PoolForm")] Pool),
    Unknown {
        #[serde(with = "moment")]
        since: Moment,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "InFlight")]
pub(super) struct InFlightForm {
    warm: u32,
    claimed: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Failures")]
pub(super) struct FailuresForm {
    in_a_row: u32,
    #[serde(with = "moment::option")]
    last: Option<Moment>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Plan")]
pub(super) struct PlanForm {
    admit: u32,
    start: u32,
    #[serde(with = "text::list")]
    stop: Vec<InstanceId>,
    recheck_after: Option<Duration>,
    because: String,
}

#[derive(Serialize, Deserialize)]
struct LimitForm {
    start: f64,
    per_second: f64,
    most: f64,
}

impl LimitForm {
    fn of(limit: Limit) -> Self {
        let Limit {
            start,
            per_second,
            most,
        } = limit;
        Self {
            start,
            per_second,
            most,
        }
    }

    fn read(self) -> Limit {
        let Self {
            start,
            per_second,
            most,
        } = self;
        Limit {
            start,
            per_second,
            most,
        }
    }
}

/// Serde for [`Rules`], whose fields are its own: it is made anew by its constructor.
pub(super) mod rules {
    use super::{Deserialize, Deserializer, Duration, Error, LimitForm, Rules, Serialize};

    #[derive(Serialize, Deserialize)]
    struct RulesForm {
        size: u32,
        min_partial: u32,
        flush_wait: Duration,
        skill: Option<LimitForm>,
        latency: Option<LimitForm>,
    }

    pub(in crate::journal) fn serialize<S: super::Serializer>(
        rules: &Rules,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        RulesForm {
            size: rules.size(),
            min_partial: rules.min_partial(),
            flush_wait: rules.flush_wait(),
            skill: rules.skill().map(LimitForm::of),
            latency: rules.latency().map(LimitForm::of),
        }
        .serialize(s)
    }

    pub(in crate::journal) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Rules, D::Error> {
        let f = RulesForm::deserialize(d)?;
        let (skill, latency) = (f.skill.map(LimitForm::read), f.latency.map(LimitForm::read));
        Rules::new(f.size, f.min_partial, f.flush_wait, skill, latency).map_err(|wrong| {
            let fields: Vec<&str> = wrong.iter().map(|e| e.field).collect();
            D::Error::custom(format_args!("no rules: {}", fields.join(", ")))
        })
    }
}

/// Serde for what waits in a queue. A skill that is no finite number counts as none stated, to the function as here.
pub(super) mod candidates {
    use super::{
        Arc, Candidate, Deserialize, Deserializer, Error, Moment, Region, Serialize, Serializer,
        TicketId, moment, text,
    };

    #[derive(Serialize, Deserialize)]
    struct Form {
        #[serde(with = "text")]
        id: TicketId,
        players: u32,
        skill: Option<f64>,
        latencies: Vec<(u8, u32)>,
        #[serde(with = "moment")]
        since: Moment,
    }

    fn of(candidate: &Candidate) -> Form {
        let Candidate {
            id,
            players,
            skill,
            latencies,
            since,
        } = candidate;
        Form {
            id: *id,
            players: *players,
            skill: skill.filter(|s| s.is_finite()),
            latencies: latencies.iter().map(|(r, ms)| (r.number(), *ms)).collect(),
            since: *since,
        }
    }

    fn read(form: Form) -> Option<Candidate> {
        let latencies = form.latencies.into_iter();
        let latencies = latencies.map(|(r, ms)| Some((Region::new(r)?, ms)));
        Some(Candidate {
            id: form.id,
            players: form.players,
            skill: form.skill,
            latencies: latencies.collect::<Option<_>>()?,
            since: form.since,
        })
    }

    pub(in crate::journal) fn serialize<S: Serializer>(
        all: &[Arc<Candidate>],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(all.iter().map(|c| of(c)))
    }

    pub(in crate::journal) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Vec<Arc<Candidate>>, D::Error> {
        let all = Vec::<Form>::deserialize(d)?.into_iter();
        all.map(|form| {
            let candidate = read(form).ok_or_else(|| D::Error::custom("no such region"))?;
            Ok(Arc::new(candidate))
        })
        .collect()
    }
}

mod region {
    use super::{Deserialize, Deserializer, Error, Region, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Region>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Region::number).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Region>, D::Error> {
        Option::<u8>::deserialize(d)?
            .map(|n| Region::new(n).ok_or_else(|| D::Error::custom("no such region")))
            .transpose()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Match")]
struct MatchForm {
    #[serde(with = "text::list")]
    tickets: Vec<TicketId>,
    players: u32,
    partial: bool,
    spread: f64,
    accepted: Option<f64>,
    #[serde(with = "region")]
    region: Option<Region>,
    latency: Option<u32>,
    waited: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Proposal")]
pub(super) struct ProposalForm {
    #[serde(with = "matches")]
    matches: Vec<Match>,
    recheck_after: Option<Duration>,
}
