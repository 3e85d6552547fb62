-- +goose Up
CREATE TABLE parties (                   -- the two parties of every delegation, in the order of account listings
  did  VARBINARY(600) NOT NULL,
  age  BIGINT NOT NULL,                  -- microseconds it was issued before 1970; the greatest integer when not said
  cid  VARBINARY(128) NOT NULL,
  role SMALLINT NOT NULL,                -- 1: delegatee, 2: delegator
  PRIMARY KEY (did, age, cid, role)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
CREATE TABLE listers (                   -- who was given the right to list the delegations of an owner's account
  owner     VARBINARY(600) NOT NULL,
  delegator VARBINARY(600) NOT NULL,
  delegatee VARBINARY(600) NOT NULL,
  PRIMARY KEY (owner, delegator, delegatee)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- +goose Down
SELECT 1;
