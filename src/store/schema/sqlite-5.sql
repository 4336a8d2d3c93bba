-- jobwatch state, version 5.

-- Whether something is held about a job is asked for each job that is to be told of.
CREATE INDEX held_lane ON held (receiver, source, subject, due_at, created_at);
-- Most deliveries that end have nobody waiting for them.
CREATE INDEX delivery_parked ON delivery (receiver) WHERE state = 'pending' AND parked;

-- The bytes of a delivery stand apart: claiming and recording touch rows that are small.
CREATE TABLE payload (
    delivery INTEGER PRIMARY KEY REFERENCES delivery (n) ON DELETE CASCADE,
    bytes    BLOB NOT NULL
);
INSERT INTO payload SELECT n, payload FROM delivery;
ALTER TABLE delivery DROP COLUMN payload;

-- What was not accepted within its time is given up also when nobody has tried it.
CREATE INDEX delivery_budget ON delivery (receiver, budget_from, n) WHERE state = 'pending' AND refused_since IS NULL;

-- Lists that people look at, each in its own order.
CREATE INDEX job_by_time ON job (status_since);
CREATE INDEX job_by_source_and_time ON job (source, status_since);
-- All that is asked when jobs are counted.
DROP INDEX job_by_status;
CREATE INDEX job_by_status ON job (source, status, gone);
CREATE INDEX transition_by_source_and_time ON transition (source, seen_at);
CREATE INDEX alert_by_time ON alert (last_seen);
CREATE INDEX alert_standing ON alert (last_seen) WHERE NOT resolved;
CREATE INDEX delivery_by_time ON delivery (created_at);
CREATE INDEX delivery_by_subject ON delivery (subject, created_at);
CREATE INDEX delivery_given_up ON delivery (state, created_at) WHERE state = 'dead' OR state = 'dropped';

-- When the listing that showed it was read: how long it took to be told is measured from there.
ALTER TABLE delivery ADD COLUMN seen_at INTEGER;

-- What is forgotten after a while, in the order of its age.
CREATE INDEX job_gone ON job (seen_at) WHERE gone;
-- The last numbers of jobs that are forgotten, under the first eight bytes of a hash: should such an id come back, its steps
-- are numbered on, so that no id that was sent is used for something else. Two jobs under one key only skip numbers.
CREATE TABLE numbered (
    key INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL
);
-- What a finding has to know of a delivery that is forgotten: when it was delivered, or that it never was.
ALTER TABLE told ADD COLUMN heard_at INTEGER;
ALTER TABLE told ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
-- The last time that something was forgotten.
CREATE TABLE pruning (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    at        INTEGER NOT NULL,
    kept_from INTEGER NOT NULL,         -- what is older was forgotten, unless it is needed
    removed   INTEGER NOT NULL,         -- rows
    excess    INTEGER NOT NULL          -- bytes above what was wanted, though nothing more could go
);

-- What the status page reads.

CREATE INDEX job_unfinished ON job (status_since) WHERE NOT gone AND status NOT IN ('Failed', 'Success');
CREATE INDEX transition_failed ON transition (seen_at) WHERE to_state = 'Failed';
-- Steps are counted without looking at them.
CREATE INDEX transition_tallied ON transition (seen_at, from_state, to_state);
-- Only what failed at least once is in it: a delivery that goes out well costs nothing here.
CREATE INDEX delivery_tried ON delivery (receiver, n) WHERE state = 'pending' AND attempts > 0;
CREATE INDEX follow_up_waiting ON follow_up (created_at) WHERE asked AND approved IS NULL AND started_at IS NULL;
