//! What an audit looks at: each part as its owner tells it. Plain values, made by whoever gathers them; in tests by hand.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::Moment;
use crate::id::{FleetName, Generation, InstanceId, PlayerId, SessionId, TicketId};
use crate::matching::Ticket;
use crate::session::Phase;
use crate::time::Known;

/// One look at everything. The parts need not be of one instant: what changed between them is sorted out by looking again.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The control plane's own view.
    pub server: Known<ServerSeen>,
    /// Every instance that the runtime lists.
    pub instances: Known<Vec<InstanceSeen>>,
    /// What the runtime keeps for instances: ports, directories, logs, processes.
    pub holdings: Known<Vec<Holding>>,
    /// What the records say of the sessions concerned.
    pub records: Known<RecordsSeen>,
    /// The tickets that the lobby keeps.
    pub lobby: Known<Vec<TicketKept>>,
    /// The gateways; unknown when none can be heard.
    pub gateways: Known<Vec<GatewaySeen>>,
}

impl Snapshot {
    /// Everything seen, and nothing there: what tests fill in.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            server: Known::Is(ServerSeen::default()),
            instances: Known::Is(Vec::new()),
            holdings: Known::Is(Vec::new()),
            records: Known::Is(RecordsSeen::default()),
            lobby: Known::Is(Vec::new()),
            gateways: Known::Is(Vec::new()),
        }
    }
}

/// The control plane's view.
#[derive(Clone, Debug, Default)]
pub struct ServerSeen {
    /// Every session that has not been recorded and forgotten.
    pub sessions: Vec<SessionSeen>,
    /// Whose each instance is.
    pub holders: Vec<(InstanceId, Holder)>,
    /// The fleets.
    pub fleets: Vec<FleetSeen>,
    /// Players who may start no other session in a fleet, because of this one. Entries whose session is live say nothing new and may
    /// be left out.
    pub bound_players: Vec<(FleetName, PlayerId, SessionId)>,
    /// Starts that were answered lately, with when. As many as are remembered.
    pub starts: Vec<(SessionId, Moment)>,
    /// Records of sessions that started before this may have been pruned.
    pub kept_since: Moment,
    /// The routes as gateways are told them.
    pub routes: Vec<RouteSeen>,
    /// The tickets that are there.
    pub tickets: Vec<TicketSeen>,
    /// What became of tickets lately.
    pub fates: Vec<(TicketId, Fate)>,
}

/// One session as the control plane sees it.
#[derive(Clone, Debug)]
pub struct SessionSeen {
    /// Its id.
    pub id: SessionId,
    /// Its fleet.
    pub fleet: FleetName,
    /// Where it is in its life.
    pub phase: Phase,
    /// Which incarnation.
    pub generation: Generation,
    /// The instance that serves it or holds its place.
    pub instance: Option<InstanceId>,
    /// That instance is known to be over.
    pub over: bool,
    /// It is durable, and nothing that was decided is still being written, told or carried out. Of what is not, only that is judged
    /// which holds in every moment.
    pub settled: bool,
    /// Who is on its roster.
    pub roster: Vec<PlayerId>,
    /// The tickets whose match it is.
    pub tickets: Vec<TicketId>,
    /// Since when its end is fixed.
    pub ending_since: Option<Moment>,
    /// How long its instance has to stop.
    pub grace: Duration,
    /// It ends by itself at this moment at the latest: the queue's, the start's or its own deadline.
    pub due: Option<Moment>,
    /// How it waits, while queued.
    pub waits: Waits,
    /// Where a gateway listens for it, if it speaks TCP.
    pub listens: Option<u16>,
}

impl SessionSeen {
    /// A settled session on this instance, first generation, with these players.
    #[must_use]
    pub fn settled(id: SessionId, fleet: FleetName, phase: Phase, on: Option<InstanceId>) -> Self {
        Self {
            id,
            fleet,
            phase,
            generation: Generation::FIRST,
            instance: on,
            over: false,
            settled: true,
            roster: Vec::new(),
            tickets: Vec::new(),
            ending_since: None,
            grace: Duration::ZERO,
            due: None,
            waits: Waits::Placed,
            listens: None,
        }
    }
}

/// How a queued session waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It stands in its fleet's line.
    InLine,
    /// It has left the line and is being put on an instance (or is not queued at all).
    Placed,
    /// It is in no line and nobody is placing it.
    Nowhere,
}

/// Whose an instance is, as the control plane sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody's yet.
    Warm,
    /// A session's.
    Session(SessionId),
    /// It holds a session's place in the queue and does not run.
    Place(SessionId),
    /// Nobody's any more: it is being stopped and removed.
    Discarded,
}

/// One fleet.
#[derive(Clone, Debug)]
pub struct FleetSeen {
    /// Its name.
    pub name: FleetName,
    /// Most instances at once; the highest limit that anything of it was started under.
    pub limit: Option<u32>,
    /// Sessions that wait for a place, the next first.
    pub line: Vec<SessionId>,
}

/// One instance as the runtime lists it.
#[derive(Clone, Debug)]
pub struct InstanceSeen {
    /// Its id.
    pub id: InstanceId,
    /// Its fleet.
    pub fleet: FleetName,
    /// What it is doing.
    pub doing: Doing,
    /// Whose it is, by its own durable facts.
    pub claim: Claim,
    /// The port it listens on, where the runtime gives ports out.
    pub port: Option<u16>,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Holds a place, does not run.
    Gated,
    /// Runs; whether it accepts yet does not matter here.
    Running,
    /// Was told to stop.
    Stopping,
    /// Is over.
    Over {
        /// Since when.
        since: Moment,
    },
    /// Nobody can say.
    Unknown {
        /// Since when.
        since: Moment,
    },
}

impl Doing {
    /// Whether it is over for certain.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Over { .. })
    }
}

/// Whose an instance is, by what is stored with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody's.
    None,
    /// A session's, in this incarnation.
    Of(SessionId, Generation),
    /// A session's, and the rest cannot be read.
    Unreadable(SessionId),
}

impl Claim {
    /// The session, if it is one's.
    #[must_use]
    pub const fn session(self) -> Option<SessionId> {
        match self {
            Self::None => None,
            Self::Of(s, _) | Self::Unreadable(s) => Some(s),
        }
    }
}

/// Something that a runtime keeps for an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What kind of thing.
    pub kind: HoldingKind,
    /// Its port number, path, or process id and name: for people.
    pub name: String,
    /// The instance it belongs to; `None` when it belongs to none.
    pub of: Option<InstanceId>,
}

/// See [`Holding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldingKind {
    /// A port that is given out.
    Port,
    /// A file or directory.
    File,
    /// A log.
    Log,
    /// A process.
    Process,
}

/// What the records say.
#[derive(Clone, Debug, Default)]
pub struct RecordsSeen {
    /// The sessions that were asked after. Of others nothing is judged.
    pub asked: HashSet<SessionId>,
    /// Those of them that have a record.
    pub found: HashSet<SessionId>,
    /// How many records there are.
    pub total: u64,
    /// Stored rows that cannot be right, as their store tells.
    pub flaws: Vec<RecordFlaw>,
}

impl RecordsSeen {
    pub(super) fn lacks(&self, session: SessionId) -> bool {
        self.asked.contains(&session) && !self.found.contains(&session)
    }
}

/// Stored rows that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFlaw {
    /// The session's id as it is stored; it need not be one.
    pub session: String,
    /// What is wrong.
    pub what: Flaw,
}

/// What is wrong with a stored record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A session has more than one.
    Twice,
    /// It does not say when it ended.
    NoEnd,
    /// Its reason is none that there is.
    NoReason,
    /// Its id is none.
    NoSession,
}

/// A ticket as the lobby keeps it.
#[derive(Clone, Debug)]
pub struct TicketKept {
    /// Its id.
    pub id: TicketId,
    /// The session its match is being started as.
    pub forming: Option<SessionId>,
}

/// A ticket as the control plane sees it.
#[derive(Clone, Debug)]
pub struct TicketSeen {
    /// The ticket.
    pub ticket: Arc<Ticket>,
    /// Where it stands.
    pub standing: Standing,
}

impl TicketSeen {
    pub(super) fn queue(&self) -> &FleetName {
        &self.ticket.queue
    }
}

/// Where a ticket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The lobby has not taken it in yet.
    Joining,
    /// It waits for a match.
    Waiting,
    /// Its match is being started as this session.
    Forming(SessionId),
}

/// What became of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It plays in this session.
    Matched(SessionId),
    /// It is gone without a match (left or lost).
    Unmatched,
}

/// One gateway.
#[derive(Clone, Debug)]
pub struct GatewaySeen {
    /// How it names itself.
    pub name: String,
    /// Its tables.
    pub tables: Known<GatewayTables>,
}

/// What a gateway has.
#[derive(Clone, Debug, Default)]
pub struct GatewayTables {
    /// Its routes.
    pub routes: Vec<RouteSeen>,
    /// Its connections, by session and incarnation.
    pub tunnels: Vec<TunnelSeen>,
    /// Ports it listens on for one session each.
    pub listeners: Vec<(SessionId, u16)>,
}

/// One route of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSeen {
    /// Whose.
    pub session: SessionId,
    /// The incarnation it leads to.
    pub generation: Generation,
    /// The phase it shows.
    pub phase: Phase,
}

/// Connections of one session to one incarnation of it, that have not been told to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSeen {
    /// Whose.
    pub session: SessionId,
    /// The incarnation they lead to.
    pub generation: Generation,
    /// How many.
    pub open: u32,
}
