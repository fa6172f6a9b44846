//! The durable record of an instance (`record.json`): a versioned mirror of the order and of what callers wrote since.
//!
//! Version 1. A reader refuses a newer version by name instead of guessing. Only the owner of the state directory writes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spawnpoint_core::{FleetName, InstanceId, SessionId};

use super::pages::Stamp;
use crate::contract::{Facts, Order, Protocol, ReadyRule, Template};

/// The stored version this program writes and reads.
pub(super) const RECORD_VERSION: u32 = 1;
/// Largest document of facts, bytes: the trait's promise to callers.
pub(super) const MAX_DOCUMENT: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    pub(super) id: String,
    pub(super) fleet: String,
    pub(super) template: TemplateRecord,
    /// Of the template when it was ordered: a release that names templates differently renews what is warm.
    pub(super) fingerprint: u64,
    pub(super) gated: bool,
    pub(super) facts: Option<FactsRecord>,
    pub(super) session_file: Option<Content>,
    pub(super) env: BTreeMap<String, String>,
    /// Counts callers' writes.
    pub(super) revision: u64,
    pub(super) port: Option<u16>,
    /// Which start this is; 0 while gated. A shim runs an attempt at most once.
    pub(super) attempt: u32,
    /// Attempts that only moved to another port.
    pub(super) port_moves: u32,
    pub(super) restarts: u32,
    /// Size of one log file; two are kept.
    pub(super) log_bytes: u64,
    pub(super) ordered_at: Stamp,
    pub(super) released_at: Option<Stamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FactsRecord {
    pub(super) session: String,
    pub(super) document: String,
}

/// A file's content: as text where it is text, because people read these files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

impl Content {
    pub(super) fn of(bytes: &Bytes) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(bytes.to_vec()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TemplateRecord {
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) inherit_env: bool,
    pub(super) workdir: Option<PathBuf>,
    pub(super) cpu_millis: Option<u32>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) protocol: ProtocolRecord,
    pub(super) ready: ReadyRecord,
    pub(super) fixed_port: Option<u16>,
    pub(super) host_port: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProtocolRecord {
    WebSocket,
    Http,
    Tcp,
    Udp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReadyRecord {
    Dial,
    Http(String),
    Log(String),
    Sdk,
    None,
}

impl From<&Template> for TemplateRecord {
    fn from(t: &Template) -> Self {
        Self {
            command: t.command.clone(),
            env: t.env.clone(),
            inherit_env: t.inherit_env,
            workdir: t.workdir.clone(),
            cpu_millis: t.cpu_millis,
            memory_bytes: t.memory_bytes,
            protocol: match t.protocol {
                Protocol::WebSocket => ProtocolRecord::WebSocket,
                Protocol::Http => ProtocolRecord::Http,
                Protocol::Tcp => ProtocolRecord::Tcp,
                Protocol::Udp => ProtocolRecord::Udp,
            },
            ready: match &t.ready {
                ReadyRule::Dial => ReadyRecord::Dial,
                ReadyRule::Http(path) => ReadyRecord::Http(path.clone()),
                ReadyRule::Log(text) => ReadyRecord::Log(text.clone()),
                ReadyRule::Sdk => ReadyRecord::Sdk,
                ReadyRule::None => ReadyRecord::None,
            },
            fixed_port: t.fixed_port,
            host_port: t.host_port,
        }
    }
}

impl From<&Facts> for FactsRecord {
    fn from(facts: &Facts) -> Self {
        Self {
            session: facts.session.to_string(),
            document: facts.document.clone(),
        }
    }
}

impl Record {
    /// The record of a fresh order. It has no port yet.
    pub(super) fn of(order: &Order, log_bytes: u64, now: Stamp) -> Self {
        Self {
            version: RECORD_VERSION,
            id: order.id.to_string(),
            fleet: order.fleet.to_string(),
            template: (&order.template).into(),
            fingerprint: order.template.fingerprint(),
            gated: order.gated,
            facts: order.facts.as_ref().map(Into::into),
            session_file: order.session_file.as_ref().map(Content::of),
            env: order.env.clone(),
            revision: 1,
            port: None,
            attempt: u32::from(!order.gated),
            port_moves: 0,
            restarts: 0,
            log_bytes,
            released_at: (!order.gated).then(|| now.clone()),
            ordered_at: now,
        }
    }

    /// Ids are checked once, here: a record with another program's ids is not ours.
    pub(super) fn instance(&self) -> Option<InstanceId> {
        self.id.parse().ok()
    }

    pub(super) fn fleet(&self) -> Option<FleetName> {
        self.fleet.parse().ok()
    }

    pub(super) fn facts(&self) -> Option<Facts> {
        let facts = self.facts.as_ref()?;
        Some(Facts {
            session: facts.session.parse::<SessionId>().ok()?,
            document: facts.document.clone(),
        })
    }
}

/// Why a record cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Cut off or overwritten (a power loss).
    Torn,
    /// Written by a newer release.
    Newer(u32),
}

/// Reads a stored record.
pub(super) fn parse(text: &[u8]) -> Result<Record, Unreadable> {
    #[derive(Deserialize)]
    struct Envelope {
        version: u32,
    }
    let envelope: Envelope = serde_json::from_slice(text).map_err(|_| Unreadable::Torn)?;
    if envelope.version > RECORD_VERSION {
        return Err(Unreadable::Newer(envelope.version));
    }
    let record: Record = serde_json::from_slice(text).map_err(|_| Unreadable::Torn)?;
    let whole = record.instance().is_some()
        && record.fleet().is_some()
        && (record.facts.is_none() || record.facts().is_some());
    if whole {
        Ok(record)
    } else {
        Err(Unreadable::Torn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let order = Order {
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            fleet: "spice".parse().unwrap(),
            template: Template {
                command: vec!["./game".into(), "$(PORT)".into()],
                env: BTreeMap::from([("A".into(), "1".into())]),
                inherit_env: false,
                workdir: None,
                cpu_millis: Some(500),
                memory_bytes: None,
                protocol: Protocol::WebSocket,
                ready: ReadyRule::Http("/health".into()),
                fixed_port: None,
                host_port: false,
            },
            gated: false,
            facts: Some(Facts {
                session: "01890a5d-ac96-774b-bcce-b302099a8058".parse().unwrap(),
                document: "{}".into(),
            }),
            session_file: Some(Bytes::from_static(b"\xff\x00")),
            env: BTreeMap::new(),
        };
        Record::of(
            &order,
            1 << 20,
            Stamp {
                wall_ms: 1,
                monotonic_ms: 1,
                boot_id: "b".into(),
            },
        )
    }

    #[test]
    fn what_is_written_is_read() {
        let text = serde_json::to_vec(&record()).unwrap();
        assert_eq!(parse(&text), Ok(record()));
    }

    #[test]
    fn a_newer_version_is_named_and_a_torn_file_is_torn() {
        let mut newer = serde_json::to_value(record()).unwrap();
        newer["version"] = 2.into();
        newer["template"] = "of another shape".into();
        assert_eq!(
            parse(newer.to_string().as_bytes()),
            Err(Unreadable::Newer(2))
        );
        let text = serde_json::to_vec(&record()).unwrap();
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Err(Unreadable::Torn), "cut at {cut}");
        }
        let mut alien = serde_json::to_value(record()).unwrap();
        alien["id"] = "../../etc".into();
        assert_eq!(parse(alien.to_string().as_bytes()), Err(Unreadable::Torn));
    }
}
