-- What businesses say of themselves: a row each, what was said last. Nobody is in it.
CREATE TABLE businesses (
    business  TEXT   NOT NULL PRIMARY KEY,
    -- Empty for none, as is the name.
    portfolio TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    category  BIGINT NOT NULL,
    tier      BIGINT NOT NULL,
    -- When it said so.
    told_ms   BIGINT NOT NULL,
    -- When that was committed: its life is counted from here.
    kept_ms   BIGINT NOT NULL
);
CREATE INDEX businesses_by_time ON businesses (kept_ms);
