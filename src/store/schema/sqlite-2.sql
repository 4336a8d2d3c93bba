-- jobwatch state, version 2.

-- Findings are loaded with the jobs that a poll is about.
ALTER TABLE alert ADD COLUMN subject TEXT NOT NULL DEFAULT '';
DROP INDEX alert_by_source;
CREATE INDEX alert_by_subject ON alert (source, subject);

-- What was told of a source's blindness is written apart from what a poll finds: one message tells of many sources.
ALTER TABLE source ADD COLUMN told_since INTEGER;   -- since when, as it was told; NULL when nothing was, or the end too
UPDATE source SET told_since = coalesce(blind_since, complete_at, 0) WHERE blind_told;
ALTER TABLE source DROP COLUMN blind_told;
ALTER TABLE source ADD COLUMN vanished INTEGER NOT NULL DEFAULT 0;   -- listings in a row that missed most jobs

-- Jobs in a status that a rule measures the time of.
CREATE INDEX job_by_status ON job (source, status) WHERE NOT gone;
