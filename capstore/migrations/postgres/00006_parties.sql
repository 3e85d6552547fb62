-- +goose Up
CREATE TABLE parties (                   -- the two parties of every delegation, in the order of account listings
  did  TEXT COLLATE "C" NOT NULL,
  age  BIGINT NOT NULL,                  -- microseconds it was issued before 1970; the greatest integer when not said
  cid  TEXT COLLATE "C" NOT NULL,
  role SMALLINT NOT NULL,                -- 1: delegatee, 2: delegator
  PRIMARY KEY (did, age, cid, role)
);
CREATE TABLE listers (                   -- who was given the right to list the delegations of an owner's account
  owner     TEXT COLLATE "C" NOT NULL,
  delegator TEXT COLLATE "C" NOT NULL,
  delegatee TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (owner, delegator, delegatee)
);

-- +goose Down
SELECT 1;
