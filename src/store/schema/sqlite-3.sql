-- jobwatch state, version 3: findings that are told with restraint.

ALTER TABLE alert ADD COLUMN resource TEXT;
ALTER TABLE alert ADD COLUMN resolved INTEGER NOT NULL DEFAULT 0;
CREATE INDEX alert_by_resource ON alert (source, resource) WHERE resource IS NOT NULL;

-- Who was told of a finding, where that matters: for a cooldown, and to tell of its end. Whether and when it was delivered
-- stands in the outbox.
CREATE TABLE told (
    alert     TEXT NOT NULL,
    receiver  TEXT NOT NULL,
    delivery  TEXT NOT NULL,
    severity  TEXT NOT NULL,
    at        INTEGER NOT NULL,
    held_back INTEGER NOT NULL,
    PRIMARY KEY (alert, receiver)
) WITHOUT ROWID;
CREATE INDEX told_by_delivery ON told (delivery);

-- Findings that nobody was told of, because a silence or the hours of a rule forbade it: each job's part. The step as in
-- `transition`.
CREATE TABLE muted (
    alert       TEXT NOT NULL,
    rule        TEXT NOT NULL,
    by          TEXT NOT NULL,
    id          TEXT NOT NULL,
    source      TEXT NOT NULL,
    job_id      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    from_state  TEXT NOT NULL,
    to_state    TEXT NOT NULL,
    seen_before INTEGER,
    seen_at     INTEGER NOT NULL,
    skipped     TEXT NOT NULL,
    late        INTEGER NOT NULL,
    job         TEXT NOT NULL,
    PRIMARY KEY (alert, job_id)
) WITHOUT ROWID;
CREATE INDEX muted_by_source ON muted (source);

CREATE TABLE silence (
    id        TEXT PRIMARY KEY,
    matchers  TEXT NOT NULL,            -- a list of `FIELD=VALUE`
    starts_at INTEGER NOT NULL,
    ends_at   INTEGER NOT NULL,
    author    TEXT NOT NULL,
    comment   TEXT NOT NULL
) WITHOUT ROWID;

-- Notifications that wait to be told with others.
CREATE TABLE held (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,    -- of the delivery it would be alone
    receiver   TEXT NOT NULL,
    source     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    event      TEXT NOT NULL,
    title      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    payload    BLOB NOT NULL,
    severity   TEXT NOT NULL,
    class      TEXT NOT NULL,
    grp        TEXT NOT NULL,
    due_at     INTEGER NOT NULL,
    data       TEXT NOT NULL
);
CREATE INDEX held_due ON held (receiver, due_at, created_at);   -- all that is asked when somebody looks what is due

-- Groups that gather.
CREATE TABLE gathering (
    receiver TEXT NOT NULL,
    grp      TEXT NOT NULL,
    until    INTEGER NOT NULL,
    wait     INTEGER NOT NULL,
    classes  TEXT NOT NULL,             -- a list: the classes of which the first was told
    PRIMARY KEY (receiver, grp)
) WITHOUT ROWID;

-- The jobs that a pending digest names: it is in order with everything else about each of them.
CREATE TABLE member (
    delivery INTEGER NOT NULL REFERENCES delivery (n) ON DELETE CASCADE,
    receiver TEXT NOT NULL,
    source   TEXT NOT NULL,
    subject  TEXT NOT NULL,
    PRIMARY KEY (receiver, source, subject, delivery)
) WITHOUT ROWID;
CREATE INDEX member_by_delivery ON member (delivery);
CREATE INDEX delivery_recent ON delivery (receiver, created_at);

-- What came of each match, for whoever asks why. `receiver` is '' when it is the same for all.
CREATE TABLE fate (
    transition TEXT NOT NULL,           -- of a stay or a change, too, which no history has
    source     TEXT NOT NULL,
    job        TEXT NOT NULL,
    rule       TEXT NOT NULL,
    receiver   TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    delivery   TEXT,
    why        TEXT NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (transition, rule, receiver)
) WITHOUT ROWID;
CREATE INDEX fate_by_time ON fate (at);
CREATE INDEX fate_by_job ON fate (source, job);
CREATE INDEX fate_by_delivery ON fate (delivery) WHERE delivery IS NOT NULL;

-- A receiver that answered that it is no more. `retired`: the operator was told. Nothing is claimed for it while it is held.
ALTER TABLE trouble ADD COLUMN retired INTEGER NOT NULL DEFAULT 0;
ALTER TABLE trouble ADD COLUMN held_since INTEGER;

-- Pending deliveries that were found to wait for another one are looked at again when that has ended, and not before.
ALTER TABLE delivery ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
DROP INDEX delivery_due;
CREATE INDEX delivery_due ON delivery (receiver, due_at, n) WHERE state = 'pending' AND NOT parked;
CREATE INDEX delivery_set ON delivery (receiver, set_at) WHERE state = 'pending' AND NOT parked;
CREATE INDEX delivery_ended ON delivery (state, receiver, n) WHERE state IN ('dead', 'dropped');

-- Copies of urgent deliveries for the fallback, until the delivery is accepted or the copy is due.
CREATE TABLE reserve (
    of         TEXT PRIMARY KEY,        -- the delivery's id
    instead_of TEXT NOT NULL,           -- and its receiver
    due_at     INTEGER NOT NULL,
    id         TEXT NOT NULL,
    receiver   TEXT NOT NULL,
    source     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    event      TEXT NOT NULL,
    title      TEXT NOT NULL,
    payload    BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX reserve_due ON reserve (instead_of, due_at);

-- What a command asks of the running agent, and its answer.
CREATE TABLE request (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    what        TEXT NOT NULL,
    asked_at    INTEGER NOT NULL,
    answered_at INTEGER,
    accepted    INTEGER,
    answer      TEXT
);
