//! Every limit with its reason. Reaching one has a [`Code`](crate::Code) and a counter.

use std::time::Duration;

/// Largest request body, bytes: every body of ours is small, so more is a mistake or an attack.
pub const MAX_BODY: usize = 64 * 1024;
/// Largest `payload` for the game, bytes of JSON: it becomes a file or an annotation of the instance.
pub const MAX_PAYLOAD: usize = 16 * 1024;
/// Longest player id, characters.
pub const MAX_PLAYER_ID_CHARS: usize = 256;
/// Longest fleet name, bytes: a DNS label.
pub const MAX_FLEET_NAME: usize = 63;
/// Most players in one session: they travel in one route and one claim.
pub const MAX_PLAYERS: usize = 100;
/// Most sessions waiting for capacity in one fleet.
pub const MAX_QUEUED: usize = 1_000;
/// Longest idempotency key, bytes.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// How long an idempotency key is remembered for its caller.
pub const IDEMPOTENCY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a session may wait for capacity.
pub const QUEUE_DEADLINE: Duration = Duration::from_secs(300);
/// Longest `wait=` of a call.
pub const MAX_WAIT: Duration = Duration::from_secs(60);
/// A connection to a starting session is parked at most this long before its handshake is answered: a browser opens no second
/// WebSocket to the host meanwhile, and one of them gives up at 20 s.
pub const MAX_PARK: Duration = Duration::from_secs(12);
/// Largest results document, bytes: the size of a Kubernetes termination log.
pub const MAX_RESULTS: usize = 4 * 1024;
/// Log bytes kept in a match record.
pub const RECORD_LOG_TAIL: usize = 64 * 1024;
/// This many crashes within [`CRASH_LOOP_WINDOW`] end a session: a third start would not be better than the second.
pub const CRASH_LOOP: usize = 3;
/// See [`CRASH_LOOP`].
pub const CRASH_LOOP_WINDOW: Duration = Duration::from_secs(60);
/// Longest pause before a crashed instance is started again.
pub const MAX_CRASH_BACKOFF: Duration = Duration::from_secs(10);
/// Longest time that one heartbeat keeps a session busy or a direct player present: whoever works longer says so again, so that a
/// typing error cannot keep an instance for a year.
pub const MAX_HEARTBEAT_TTL: Duration = Duration::from_secs(3600);
/// The mass-end brake looks at what would end within this time.
pub const BRAKE_WINDOW: Duration = Duration::from_secs(10);
/// The brake holds above this share of live sessions, in percent ...
pub const BRAKE_PERCENT: usize = 20;
/// ... and never for fewer than this many, or three friends going home would trip it.
pub const BRAKE_MIN: usize = 5;
/// The brake waits this long at most for fresher facts once facts are known at all.
pub const BRAKE_LONGEST_HOLD: Duration = Duration::from_secs(10);
/// A worker tick later than this means that the process was not running (suspend, SIGSTOP): what it believes is stale.
pub const LATE_TICK: Duration = Duration::from_secs(5);
/// Events kept for resuming streams, all sessions together.
pub const EVENT_RING: usize = 8_192;
/// Decisions kept per session for `why`.
pub const DECISIONS_KEPT: usize = 64;
/// Largest page of a listing.
pub const MAX_PAGE: usize = 500;
/// Page size when none is asked for.
pub const DEFAULT_PAGE: usize = 50;
