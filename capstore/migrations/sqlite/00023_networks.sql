-- +goose Up
-- Encryption networks, each the keys that this host keeps for an owner under a name.
CREATE TABLE networks (
  id          BLOB PRIMARY KEY,                -- BLAKE3 of the network's id
  network     TEXT NOT NULL,                   -- the id
  owner       TEXT NOT NULL,
  name        TEXT NOT NULL,
  state       TEXT NOT NULL,                   -- active, rotating, revoked
  threshold_n INTEGER NOT NULL,                -- as the owner said them: nothing follows from them
  threshold_t INTEGER NOT NULL,
  created     INTEGER NOT NULL,                -- unix nanoseconds, as is updated
  updated     INTEGER NOT NULL,
  audited     INTEGER NOT NULL,                -- rows of network_audit that were ever written
  revocation  BLOB                             -- the token that revoked it
) WITHOUT ROWID;
CREATE INDEX networks_owner ON networks (owner);
CREATE TABLE network_keys (            -- hosts may have made several for a version
  network    BLOB NOT NULL,                    -- networks.id
  version    INTEGER NOT NULL,
  public_key BLOB NOT NULL,
  sealed     BLOB,                             -- the private key under a key from the node's secret; NULL: not here
  created    INTEGER NOT NULL,                 -- unix nanoseconds
  creator    TEXT NOT NULL,                    -- DID of the node that made it
  made_by    BLOB,                             -- the token that had it made; NULL: taken over from elsewhere
  PRIMARY KEY (network, version, public_key)
) WITHOUT ROWID;
CREATE TABLE network_nonces (          -- of requests that count once
  id      BLOB PRIMARY KEY,                    -- of requester and nonce
  owner   TEXT NOT NULL,
  expires INTEGER NOT NULL                     -- unix seconds
) WITHOUT ROWID;
CREATE INDEX network_nonces_owner ON network_nonces (owner);
CREATE INDEX network_nonces_expires ON network_nonces (expires);
CREATE TABLE network_audit (           -- who had keys unsealed, or was refused; of a network the last so many
  network   BLOB NOT NULL,
  slot      INTEGER NOT NULL,
  request   BLOB NOT NULL,                     -- hash of token and body
  requester TEXT NOT NULL,
  outcome   TEXT NOT NULL,
  decided   INTEGER NOT NULL,                  -- unix milliseconds
  PRIMARY KEY (network, slot)
) WITHOUT ROWID;
CREATE INDEX network_audit_request ON network_audit (network, request);
CREATE INDEX network_audit_decided ON network_audit (decided);

-- +goose Down
DROP TABLE network_audit;
DROP TABLE network_nonces;
DROP TABLE network_keys;
DROP TABLE networks;
