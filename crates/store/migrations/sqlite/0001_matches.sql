-- What this file says is final: a released migration is never edited (its checksum is verified at every start). Changes are new
-- files, and expand/contract only: the previous release must start and write on the schema a new one leaves behind.

-- One row. `compatible_from` is the lowest migration a release must know to use this database; a contracting migration raises it.
CREATE TABLE store_state (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    compatible_from INTEGER NOT NULL,
    probes          INTEGER NOT NULL
) STRICT;
INSERT INTO store_state (id, compatible_from, probes) VALUES (1, 1, 0);

-- Times are Unix milliseconds. Ids are canonical lower-case UUID text, whose byte order is the UUID's order.
CREATE TABLE matches (
    session_id      TEXT PRIMARY KEY,
    fleet           TEXT NOT NULL,
    server          TEXT NOT NULL,
    instance_id     TEXT,
    generation      INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    started_at      INTEGER,
    ended_at        INTEGER NOT NULL,
    reason          TEXT NOT NULL,
    ended_by        TEXT NOT NULL,
    code            TEXT,
    exit_code       INTEGER,
    exit_signal     INTEGER,
    oom             INTEGER NOT NULL,
    results         TEXT,
    results_error   TEXT,
    -- The receipt: all of them or none.
    queue_ms        INTEGER,
    schedule_ms     INTEGER,
    pull_ms         INTEGER,
    boot_ms         INTEGER,
    claim_ms        INTEGER,
    dial_ms         INTEGER,
    total_ms        INTEGER,
    -- SHA-256, hex; never the key itself.
    idempotency_key  TEXT,
    idempotency_body TEXT
) STRICT;
CREATE INDEX matches_by_end ON matches (ended_at, session_id);
CREATE INDEX matches_by_fleet ON matches (fleet, ended_at, session_id);
CREATE INDEX matches_by_reason ON matches (reason, ended_at, session_id);
CREATE INDEX matches_by_fleet_reason ON matches (fleet, reason, ended_at, session_id);
CREATE INDEX matches_by_idempotency ON matches (idempotency_key, ended_at, session_id) WHERE idempotency_key IS NOT NULL;

-- `ended_at` is repeated here so that one index gives a player's matches in order. `again` marks a player listed before in the
-- same match: it is kept for the record and skipped when searching.
CREATE TABLE match_players (
    session_id TEXT NOT NULL REFERENCES matches (session_id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    player_id  TEXT NOT NULL,
    joined_at  INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    again      INTEGER NOT NULL,
    PRIMARY KEY (session_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX match_players_by_player ON match_players (player_id, ended_at, session_id) WHERE again = 0;

-- Apart from `matches`, so that a listing never reads 64 KiB a row.
CREATE TABLE match_logs (
    session_id TEXT PRIMARY KEY REFERENCES matches (session_id) ON DELETE CASCADE,
    tail       BLOB NOT NULL
) STRICT;
