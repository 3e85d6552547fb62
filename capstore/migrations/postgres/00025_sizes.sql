-- +goose Up
-- What counts of services beside key-value: the bytes of their operations, and of what their states take here.
ALTER TABLE spaces ADD COLUMN ops BIGINT NOT NULL DEFAULT 0;
ALTER TABLE spaces ADD COLUMN sizes BIGINT NOT NULL DEFAULT 0;
CREATE TABLE sizes (
  sid     BIGINT NOT NULL,
  service VARCHAR(32) NOT NULL,
  id      BYTEA NOT NULL, -- hash of the subject
  size    BIGINT NOT NULL,
  PRIMARY KEY (sid, service, id)
);
UPDATE spaces SET ops = (SELECT coalesce(sum(length(o.bytes)), 0) FROM ops o WHERE o.sid = spaces.sid AND o.service <> 'kv');
-- Those that are pending counted in bytes.
UPDATE spaces SET bytes = bytes - (SELECT coalesce(sum(y.size), 0) FROM pending y JOIN ops o ON o.eid = y.eid AND o.idx = y.idx AND o.n = y.n
  WHERE y.sid = spaces.sid AND o.service <> 'kv');
UPDATE pending SET size = 0 WHERE EXISTS
  (SELECT 1 FROM ops o WHERE o.eid = pending.eid AND o.idx = pending.idx AND o.n = pending.n AND o.service <> 'kv');

-- +goose Down
SELECT 1;
