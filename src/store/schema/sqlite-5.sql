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

-- When the listing that showed it was read: how long it took to be told is measured from there.
ALTER TABLE delivery ADD COLUMN seen_at INTEGER;

-- Jobs are counted by status whenever somebody looks at the metrics: from the index alone.
DROP INDEX job_by_status;
CREATE INDEX job_by_status ON job (source, status, gone) WHERE NOT gone;
