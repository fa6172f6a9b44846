//! Records in memory: for tests and planning. Nothing outlives the process, and nothing here waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use spawnpoint_core::SessionId;
use spawnpoint_core::limits::MAX_PAGE;
use spawnpoint_core::record::{IdempotencyMark, MatchRecord};

use crate::cursor::Position;
use crate::{Filter, Inserted, Inspection, Page, Records, StoreError};

/// Match records in memory. Clones share their content.
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords {
    tables: Arc<Mutex<Tables>>,
}

#[derive(Debug, Default)]
struct Tables {
    by_end: BTreeMap<Position, MatchRecord>,
    ends: HashMap<SessionId, i64>,
    by_key: HashMap<String, BTreeSet<Position>>,
}

impl MemoryRecords {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each change is one that cannot panic half-way, so a poisoned lock still guards whole tables.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filter {
    /// Whether a record is wanted: the meaning of a filter, for every store to agree with.
    fn wants(&self, r: &MatchRecord) -> bool {
        self.fleet.as_ref().is_none_or(|f| *f == r.fleet)
            && self
                .player
                .as_ref()
                .is_none_or(|p| r.players.iter().any(|m| m.player == *p))
            && self.reason.is_none_or(|w| w == r.reason)
            && self.ended_from.is_none_or(|t| r.ended_at >= t)
            && self.ended_until.is_none_or(|t| r.ended_at < t)
    }
}

#[async_trait]
impl Records for MemoryRecords {
    async fn insert(&self, record: &MatchRecord) -> Result<Inserted, StoreError> {
        let at = Position::of(record);
        let mut t = self.tables();
        if t.ends.contains_key(&record.session) {
            return Ok(Inserted::Before);
        }
        t.ends.insert(record.session, record.ended_at);
        if let Some(mark) = &record.idempotency {
            t.by_key
                .entry(mark.key_hash.clone())
                .or_default()
                .insert(at);
        }
        t.by_end.insert(at, record.clone());
        Ok(Inserted::Now)
    }

    async fn get(&self, session: SessionId) -> Result<Option<MatchRecord>, StoreError> {
        let t = self.tables();
        let Some(&ended_at) = t.ends.get(&session) else {
            return Ok(None);
        };
        Ok(t.by_end.get(&Position { ended_at, session }).cloned())
    }

    async fn list(
        &self,
        filter: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let upper = match cursor {
            Some(text) => Bound::Excluded(Position::decode(text)?),
            None => Bound::Unbounded,
        };
        let t = self.tables();
        let mut found = t
            .by_end
            .range((Bound::Unbounded, upper))
            .rev()
            .filter(|(_, r)| filter.wants(r))
            .take(limit + 1);
        let mut records: Vec<MatchRecord> = Vec::new();
        for (_, r) in found.by_ref().take(limit) {
            records.push(MatchRecord {
                log_tail: Vec::new(),
                ..r.clone()
            });
        }
        let more = found.next().is_some();
        let next = records
            .last()
            .filter(|_| more)
            .map(|r| Position::of(r).encode());
        Ok(Page { records, next })
    }

    async fn by_idempotency(
        &self,
        key_hash: &str,
        not_before: i64,
    ) -> Result<Option<(SessionId, IdempotencyMark)>, StoreError> {
        let t = self.tables();
        Ok(t.by_key
            .get(key_hash)
            .and_then(|ends| ends.last())
            .filter(|p| p.ended_at >= not_before)
            .and_then(|p| t.by_end.get(p))
            .and_then(|r| Some((r.session, r.idempotency.clone()?))))
    }

    async fn prune(&self, ended_before: i64, limit: usize) -> Result<u64, StoreError> {
        let mut t = self.tables();
        let mut pruned = 0;
        for _ in 0..limit {
            let Some(oldest) = t.by_end.first_entry() else {
                break;
            };
            if oldest.key().ended_at >= ended_before {
                break;
            }
            let (at, record) = oldest.remove_entry();
            t.ends.remove(&at.session);
            if let Some(mark) = record.idempotency
                && let Some(ends) = t.by_key.get_mut(&mark.key_hash)
            {
                ends.remove(&at);
                if ends.is_empty() {
                    t.by_key.remove(&mark.key_hash);
                }
            }
            pruned += 1;
        }
        Ok(pruned)
    }

    async fn recorded(&self, sessions: &[SessionId]) -> Result<HashSet<SessionId>, StoreError> {
        let t = self.tables();
        let there = sessions.iter().filter(|s| t.ends.contains_key(*s));
        Ok(there.copied().collect())
    }

    async fn inspect(&self) -> Result<Inspection, StoreError> {
        // Types and keys leave no room for a flaw here.
        Ok(Inspection {
            total: self.tables().by_end.len() as u64,
            flaws: Vec::new(),
        })
    }

    async fn healthy(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
