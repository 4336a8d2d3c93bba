-- jobwatch state, version 4: follow-ups.

-- One row for each follow-up of each episode of a finding, kept when its delivery no longer is: none is begun twice.
CREATE TABLE follow_up (
    id         TEXT PRIMARY KEY,        -- of its delivery
    name       TEXT NOT NULL,
    alert      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    asked      INTEGER NOT NULL DEFAULT 0,   -- it waits for somebody's word
    approved   INTEGER,                 -- 1 or 0; NULL when nobody has said anything
    consent_by TEXT,
    consent_at INTEGER,
    started_at INTEGER                  -- written before the deed
) WITHOUT ROWID;
CREATE INDEX follow_up_recent ON follow_up (name, started_at);
CREATE INDEX follow_up_by_time ON follow_up (created_at);
