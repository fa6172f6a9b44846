//! The tickets as an audit sees them.

use std::sync::Arc;

use spawnpoint_core::TicketId;
use spawnpoint_core::audit::{Fate, Standing as StandingSeen, TicketSeen};

use super::fates::End;
use super::table::{Standing, Table};

impl Table {
    /// What became of tickets lately.
    pub(crate) fn audit_fates(&self) -> Vec<(TicketId, Fate)> {
        let fates = self.fates().all();
        fates
            .map(|(id, fate)| {
                let fate = match fate.end {
                    End::Matched(session) => Fate::Matched(session),
                    End::Left | End::Lost(..) => Fate::Unmatched,
                };
                (id, fate)
            })
            .collect()
    }

    /// Every ticket that is there.
    pub(crate) fn audit_ids(&self) -> Vec<TicketId> {
        self.ids().collect()
    }

    /// Those of some that are still there.
    pub(crate) fn audit(&self, some: &[TicketId]) -> Vec<TicketSeen> {
        let there = some.iter().filter_map(|id| self.get(*id));
        there
            .map(|t| TicketSeen {
                ticket: Arc::clone(&t.ticket),
                standing: match t.standing {
                    Standing::Joining => StandingSeen::Joining,
                    Standing::Waiting => StandingSeen::Waiting,
                    Standing::Forming(session) => StandingSeen::Forming(session),
                },
            })
            .collect()
    }
}
