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
