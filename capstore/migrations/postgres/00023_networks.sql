-- +goose Up
-- Encryption networks, each the keys that this host keeps for an owner under a name.
CREATE TABLE networks (
  id          BYTEA PRIMARY KEY,               -- BLAKE3 of the network's id
  network     TEXT COLLATE "C" NOT NULL,       -- the id
  owner       TEXT COLLATE "C" NOT NULL,
  name        TEXT COLLATE "C" NOT NULL,
  state       TEXT NOT NULL,                   -- active, rotating, revoked
  threshold_n BIGINT NOT NULL,                 -- as the owner said them: nothing follows from them
  threshold_t BIGINT NOT NULL,
  created     BIGINT NOT NULL,                 -- unix nanoseconds, as is updated
  updated     BIGINT NOT NULL,
  audited     BIGINT NOT NULL,                 -- rows of network_audit that were ever written
  revocation  BYTEA                            -- the token that revoked it
);
CREATE INDEX networks_owner ON networks (owner);
CREATE TABLE network_keys (            -- hosts may have made several for a version
  network    BYTEA NOT NULL,                   -- networks.id
  version    BIGINT NOT NULL,
  public_key BYTEA NOT NULL,
  sealed     BYTEA,                            -- the private key under a key from the node's secret; NULL: not here
  created    BIGINT NOT NULL,                  -- unix nanoseconds
  creator    TEXT COLLATE "C" NOT NULL,        -- DID of the node that made it
  made_by    BYTEA,                            -- the token that had it made; NULL: taken over from elsewhere
  PRIMARY KEY (network, version, public_key)
);
CREATE TABLE network_nonces (          -- of requests that count once
  id      BYTEA PRIMARY KEY,                   -- of requester and nonce
  owner   TEXT COLLATE "C" NOT NULL,
  expires BIGINT NOT NULL                      -- unix seconds
);
CREATE INDEX network_nonces_owner ON network_nonces (owner);
CREATE INDEX network_nonces_expires ON network_nonces (expires);
CREATE TABLE network_audit (           -- who had keys unsealed, or was refused; of a network the last so many
  network   BYTEA NOT NULL,
  slot      BIGINT NOT NULL,
  request   BYTEA NOT NULL,                    -- hash of token and body
  requester TEXT COLLATE "C" NOT NULL,
  outcome   TEXT NOT NULL,
  decided   BIGINT NOT NULL,                   -- unix milliseconds
  PRIMARY KEY (network, slot)
);
CREATE INDEX network_audit_request ON network_audit (network, request);
CREATE INDEX network_audit_decided ON network_audit (decided);

-- +goose Down
SELECT 1;
