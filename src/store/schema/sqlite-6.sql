-- jobwatch state, version 6: what the status page reads.

CREATE INDEX job_unfinished ON job (status_since) WHERE NOT gone AND status NOT IN ('Failed', 'Success');
CREATE INDEX transition_failed ON transition (seen_at) WHERE to_state = 'Failed';
-- Steps are counted without looking at them.
CREATE INDEX transition_tallied ON transition (seen_at, from_state, to_state);
-- Only what failed at least once is in it: a delivery that goes out well costs nothing here.
CREATE INDEX delivery_tried ON delivery (receiver, n) WHERE state = 'pending' AND attempts > 0;
CREATE INDEX follow_up_waiting ON follow_up (created_at) WHERE asked AND approved IS NULL AND started_at IS NULL;
