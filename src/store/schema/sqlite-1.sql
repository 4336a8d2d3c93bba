-- jobwatch state, version 1. Times are microseconds since 1970 in UTC.

-- A polled listing and whether it can be seen.
CREATE TABLE source (
    name        TEXT PRIMARY KEY,
    complete_at INTEGER,                -- the last complete listing; NULL before the baseline
    blind_since INTEGER,
    blind_told  INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- The snapshot: every job as it was last accepted.
CREATE TABLE job (
    source        TEXT NOT NULL,
    id            TEXT NOT NULL,
    status        TEXT NOT NULL,
    instance_id   TEXT,
    resource_id   TEXT,
    resource_name TEXT,
    type          TEXT,
    reason        TEXT,
    created_at    TEXT,                 -- as the cloud wrote it
    updated_at    TEXT,
    seq           INTEGER NOT NULL,     -- transitions observed so far
    status_since  INTEGER NOT NULL,
    seen_at       INTEGER NOT NULL,
    missing       INTEGER NOT NULL,
    stale         INTEGER NOT NULL,
    gone          INTEGER NOT NULL,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;

-- History: every step that was observed, with the job as it was then (JSON).
CREATE TABLE transition (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    source      TEXT NOT NULL,
    job_id      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    from_state  TEXT NOT NULL,
    to_state    TEXT NOT NULL,
    seen_before INTEGER,
    seen_at     INTEGER NOT NULL,
    skipped     TEXT NOT NULL,
    late        INTEGER NOT NULL,
    job         TEXT NOT NULL
);
CREATE INDEX transition_by_job ON transition (source, job_id, seq);
CREATE INDEX transition_by_time ON transition (seen_at);

-- The standing findings of rules.
CREATE TABLE alert (
    id         TEXT PRIMARY KEY,
    rule       TEXT NOT NULL,
    source     TEXT NOT NULL,
    severity   TEXT NOT NULL,
    count      INTEGER NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX alert_by_source ON alert (source);

-- The outbox. `source` is '' for the agent's own affairs.
CREATE TABLE delivery (
    n             INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT NOT NULL UNIQUE,
    receiver      TEXT NOT NULL,
    source        TEXT NOT NULL,
    subject       TEXT NOT NULL,
    event         TEXT NOT NULL,
    title         TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    payload       BLOB NOT NULL,        -- frozen: every attempt sends these bytes
    state         TEXT NOT NULL,        -- pending, delivered, dead
    due_at        INTEGER NOT NULL,
    set_at        INTEGER NOT NULL,     -- when due_at was set: if that lies a minute ahead, the clock was set back, and it is due
    budget_from   INTEGER NOT NULL,     -- when the time to give up began to run
    attempts      INTEGER NOT NULL DEFAULT 0,
    tries         INTEGER NOT NULL DEFAULT 0,   -- attempts since budget_from
    refused_since INTEGER,
    progress      TEXT NOT NULL DEFAULT '[]',
    note          TEXT NOT NULL DEFAULT '',
    claim_token   INTEGER,
    claim_until   INTEGER,
    ended_at      INTEGER
);
CREATE INDEX delivery_due ON delivery (receiver, due_at, n) WHERE state = 'pending';
CREATE INDEX delivery_lane ON delivery (receiver, source, subject, n) WHERE state = 'pending';
CREATE INDEX delivery_claimed ON delivery (receiver, claim_until) WHERE state = 'pending' AND claim_until IS NOT NULL;

-- Every attempt that was made.
CREATE TABLE attempt (
    delivery INTEGER NOT NULL REFERENCES delivery (n) ON DELETE CASCADE,
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    took     INTEGER NOT NULL,
    outcome  TEXT NOT NULL,
    detail   TEXT NOT NULL,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

-- What the operator has been told of a receiver's trouble; no row when it takes what it is sent.
CREATE TABLE trouble (
    receiver TEXT PRIMARY KEY,
    since    INTEGER NOT NULL,
    refused  INTEGER NOT NULL,
    dead     INTEGER NOT NULL
) WITHOUT ROWID;
