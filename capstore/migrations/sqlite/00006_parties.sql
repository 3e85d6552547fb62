-- +goose Up

CREATE TABLE parties (                   -- the two parties of every delegation, in the order of account listings
  n    INTEGER PRIMARY KEY,
  did  TEXT    NOT NULL,
  age  INTEGER NOT NULL,                 -- microseconds it was issued before 1970; the greatest integer when not said
  cid  TEXT    NOT NULL,
  role INTEGER NOT NULL                  -- 1: delegatee, 2: delegator
);
CREATE UNIQUE INDEX parties_did ON parties (did, age, cid, role);
CREATE TABLE listers (                   -- who was given the right to list the delegations of an owner's account
  owner     TEXT NOT NULL,
  delegator TEXT NOT NULL,
  delegatee TEXT NOT NULL,
  PRIMARY KEY (owner, delegator, delegatee)
) WITHOUT ROWID;

-- +goose Down
SELECT 1;
