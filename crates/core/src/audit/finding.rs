//! What an audit can find: a rule that was broken, by whom, and what to do about it.

use std::fmt;

use crate::Moment;
use crate::id::{FleetName, InstanceId, PlayerId, SessionId, TicketId};

macro_rules! rules {
    ($($(#[doc = $doc:literal])* $variant:ident = $text:literal, $advice:literal;)*) => {
        /// A rule that an audit proves. The code is stable: never renamed; new ones are added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($(#[doc = $doc])* $variant,)* }

        impl Rule {
            /// All rules, for documents and exhaustive tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code of a finding that breaks it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What a finding of it says, in a sentence for people (the variant's own documentation).
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$variant => $advice,)* }
            }
        }
    };
}

rules! {
    /// A start that was answered is neither live nor recorded.
    StartLost = "start_lost", "look for the session in the server's log; its players can start again";
    /// A session is live and has a record.
    LiveAndRecorded = "live_and_recorded", "its record stands; end the session to free its players and its instance";
    /// A session has more than one record.
    RecordTwice = "record_twice", "the record store is damaged: restore it from a backup, or remove the later row";
    /// A stored record cannot be right.
    RecordFlawed = "record_flawed", "the record store was changed by something else or is damaged: restore the row from a backup, or remove it";
    /// A player is in two live sessions of one fleet.
    PlayerInTwoSessions = "player_in_two_sessions", "end the one that the player is not in";
    /// A player may start no session because of one that is not there.
    PlayerLockedOut = "player_locked_out", "restart the server: it reads again who plays where";
    /// One instance serves two sessions.
    InstanceInTwoSessions = "instance_in_two_sessions", "end both sessions: what they do to each other cannot be known";
    /// A session has two instances of one generation.
    SessionOnTwoInstances = "session_on_two_instances", "restart the server: it keeps the newer instance and removes the other";
    /// An instance belongs to nothing that is live, and nobody is removing it.
    InstanceOrphaned = "instance_orphaned", "restart the server: it adopts or removes what it finds";
    /// What is stored with an instance cannot be read.
    ClaimUnreadable = "claim_unreadable", "somebody may be playing on it: start the release that wrote it, or stop the instance by hand";
    /// What is stored with an instance is not what the server believes.
    ClaimDiffers = "claim_differs", "a restart now would go by what is stored: end the session if that is the wrong one";
    /// A session that should be served has no instance.
    SessionWithoutInstance = "session_without_instance", "end the session, or restart the server: it heals what it finds broken";
    /// An instance is over and its session has not been told.
    ExitUnnoticed = "exit_unnoticed", "restart the server: it looks at every instance anew";
    /// An instance that nobody needs has not been removed.
    InstanceNotRemoved = "instance_not_removed", "see the server's log for why the runtime refuses, and remove the cause";
    /// A session's end has not been finished in time.
    EndOverdue = "end_overdue", "see the server's log for what fails: the record store or the runtime";
    /// A session lives past its deadline.
    DeadlineMissed = "deadline_missed", "see `/debug/workers` for what holds culls, and the server's log";
    /// A session waits for a place and is in no line.
    PlaceLost = "place_lost", "end the session: its players can start again";
    /// A line holds a session that does not wait.
    LineHoldsStranger = "line_holds_stranger", "restart the server: it builds the line anew";
    /// A fleet runs more instances than it may.
    CapacityExceeded = "capacity_exceeded", "end sessions or raise the fleet's limit, and report this: it must not happen";
    /// A route leads to a session that is not there.
    RouteOrphaned = "route_orphaned", "restart the gateway: it reads all routes anew";
    /// A live session has no route.
    RouteMissing = "route_missing", "restart the gateway: it reads all routes anew";
    /// A route shows another generation or phase than its session has.
    RouteDiffers = "route_differs", "restart the gateway: it reads all routes anew";
    /// A connection is held to a session that is not there.
    TunnelOrphaned = "tunnel_orphaned", "restart the gateway: every connection is closed and made anew";
    /// A connection is held to an instance that its session has left.
    TunnelOutdated = "tunnel_outdated", "restart the gateway: every connection is closed and made anew";
    /// A port is listened on for a session that is not there.
    ListenerOrphaned = "listener_orphaned", "restart the gateway: it listens only for what is live";
    /// Nobody listens on the port that a session's players were told.
    ListenerMissing = "listener_missing", "see the gateway's log for what took the port; players can join by a new session";
    /// Two instances that run have one port.
    PortShared = "port_shared", "end one of their sessions";
    /// A port is given out to an instance that is not there.
    PortOrphaned = "port_orphaned", "restart the server: ports are given out anew";
    /// A file belongs to no instance.
    FileOrphaned = "file_orphaned", "look at it, then remove it";
    /// A log belongs to no instance.
    LogOrphaned = "log_orphaned", "look at it, then remove it";
    /// A process belongs to no instance.
    ProcessOrphaned = "process_orphaned", "nobody watches it: end it by its number";
    /// A ticket is in the matches of two sessions.
    TicketInTwoMatches = "ticket_in_two_matches", "end one of the two sessions";
    /// A ticket was matched into a session that is neither live nor recorded.
    TicketWithoutSession = "ticket_without_session", "look for the session in the server's log; its players can join again";
    /// A ticket has had its fate and still waits.
    TicketTwoFates = "ticket_two_fates", "let the player leave the queue";
    /// A ticket's match is being started by nobody.
    TicketStuck = "ticket_stuck", "restart the server: it settles or gives back what it finds forming";
    /// The lobby keeps a ticket that the server does not know.
    TicketUnknown = "ticket_unknown", "restart the server: it reads the lobby anew";
    /// A ticket waits and the lobby does not keep it.
    TicketNotKept = "ticket_not_kept", "a restart would lose it: let the player leave and join again";
    /// A player waits twice in one queue.
    PlayerInTwoTickets = "player_in_two_tickets", "let the player leave the queue and join again";
}

/// Whom or what a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// A session.
    Session(SessionId),
    /// An instance.
    Instance(InstanceId),
    /// A ticket.
    Ticket(TicketId),
    /// A fleet (or queue).
    Fleet(FleetName),
    /// A player.
    Player(PlayerId),
    /// A port.
    Port(u16),
    /// A gateway, by its name; `server` is the table that gateways are told.
    Gateway(String),
    /// A file, log or process.
    Thing(String),
    /// A stored row, by the session id in it.
    Row(String),
}

impl Id {
    /// What kind of thing it is: the field that carries it in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Instance(_) => "instance",
            Self::Ticket(_) => "ticket",
            Self::Fleet(_) => "fleet",
            Self::Player(_) => "player",
            Self::Port(_) => "port",
            Self::Gateway(_) => "gateway",
            Self::Thing(_) => "thing",
            Self::Row(_) => "row",
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(v) => v.fmt(f),
            Self::Instance(v) => v.fmt(f),
            Self::Ticket(v) => v.fmt(f),
            Self::Fleet(v) => v.fmt(f),
            Self::Player(v) => v.fmt(f),
            Self::Port(v) => v.fmt(f),
            Self::Gateway(v) | Self::Thing(v) | Self::Row(v) => f.write_str(v),
        }
    }
}

macro_rules! id_from {
    ($($from:ty => $to:ident),*) => {
        $(impl From<$from> for Id {
            fn from(v: $from) -> Self { Self::$to(v) }
        })*
    };
}
id_from!(SessionId => Session, InstanceId => Instance, TicketId => Ticket, FleetName => Fleet, PlayerId => Player, u16 => Port);

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub rule: Rule,
    /// By whom: what makes two findings the same one.
    pub ids: Vec<Id>,
    /// What was seen, in words, without what the rule and the ids say already.
    pub seen: String,
}

impl Finding {
    /// Whether it is the same finding, whatever words it comes with.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    pub(super) fn key(&self) -> (Rule, &[Id]) {
        (self.rule, &self.ids)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.rule.as_str())?;
        for id in &self.ids {
            write!(f, " {} {id}", id.kind())?;
        }
        write!(f, ": {}", self.seen)
    }
}

/// Something that could not be looked at. Never taken for being in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// What.
    pub part: Part,
    /// Since when nobody could say.
    pub since: Moment,
}

/// A part of the world that an audit looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The control plane's own view (an earlier run's sessions are still being taken over).
    Server,
    /// The runtime's list.
    Instances,
    /// What one instance does.
    Instance(InstanceId),
    /// Ports, files, logs and processes.
    Holdings,
    /// The match records.
    Records,
    /// The lobby's tickets.
    Lobby,
    /// The gateways: none can be heard.
    Gateways,
    /// One gateway's tables.
    Gateway(String),
}

impl Part {
    /// The stable code.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Instances => "instances",
            Self::Instance(_) => "instance",
            Self::Holdings => "holdings",
            Self::Records => "records",
            Self::Lobby => "lobby",
            Self::Gateways => "gateways",
            Self::Gateway(_) => "gateway",
        }
    }

    /// What was not proven for want of it, in a sentence for people.
    #[must_use]
    pub const fn about(&self) -> &'static str {
        match self {
            Self::Server => "the sessions of an earlier run are still being taken over",
            Self::Instances => "the runtime cannot say which instances there are",
            Self::Instance(_) => "its supervisor cannot be reached; somebody may be playing on it",
            Self::Holdings => "the runtime cannot say which ports, files and processes there are",
            Self::Records => "the record store cannot be read: what has ended may be lost",
            Self::Lobby => "the lobby cannot be read: who waits may be lost",
            Self::Gateways => "no gateway can be heard: who is connected is not known",
            Self::Gateway(_) => "this gateway cannot be heard: what it has open is not known",
        }
    }
}
