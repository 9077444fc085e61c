-- The metastore's tables. Portable SQL: BIGINT, TEXT and DOUBLE PRECISION only, no triggers, no generated columns.
-- Times are milliseconds since 1970-01-01 UTC; epochs are days since 1970-01-01 UTC. No column may hold a pseudonym of a consumer,
-- a phone number, a payload or a key (I4).

-- Progress: one row a partition. A plan is open while plan_from is not null.
CREATE TABLE partitions (
    source              TEXT   NOT NULL,
    number              BIGINT NOT NULL,
    generation          BIGINT NOT NULL,
    owner               TEXT   NOT NULL,
    next_offset         BIGINT,
    next_sequence       BIGINT NOT NULL,
    end_offset          BIGINT,
    watermark_ms        BIGINT,
    last_commit_ms      BIGINT NOT NULL,
    seen_ms             BIGINT NOT NULL,
    events              BIGINT NOT NULL,
    plan_from           BIGINT,
    plan_to             BIGINT,
    plan_closed_through BIGINT,
    planned_at_ms       BIGINT,
    PRIMARY KEY (source, number)
);

-- I1: the sum over a partition's rows equals partitions.events. epoch -2147483649: the event named no readable time.
CREATE TABLE counts (
    source  TEXT   NOT NULL,
    number  BIGINT NOT NULL,
    epoch   BIGINT NOT NULL,
    outcome TEXT   NOT NULL,
    events  BIGINT NOT NULL CHECK (events >= 0),
    PRIMARY KEY (source, number, epoch, outcome)
);

-- Unreadable events: where and why, never what.
CREATE TABLE quarantine (
    source   TEXT   NOT NULL,
    number   BIGINT NOT NULL,
    position BIGINT NOT NULL,
    fault    TEXT   NOT NULL,
    length   BIGINT NOT NULL,
    at_ms    BIGINT NOT NULL,
    PRIMARY KEY (source, number, position)
);
CREATE INDEX quarantine_by_time ON quarantine (at_ms);

-- Files of person rows that wait for their window to close.
CREATE TABLE segments (
    path      TEXT   NOT NULL PRIMARY KEY,
    epoch     BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    bytes     BIGINT NOT NULL
);
CREATE INDEX segments_by_epoch ON segments (epoch);

CREATE TABLE windows (
    epoch         BIGINT NOT NULL PRIMARY KEY,
    state         TEXT   NOT NULL CHECK (state IN ('open', 'closing', 'closed', 'incomplete')),
    table_path    TEXT,
    table_rows    BIGINT,
    table_bytes   BIGINT,
    opened_at_ms  BIGINT NOT NULL,
    closing_at_ms BIGINT,
    closed_at_ms  BIGINT,
    expired_at_ms BIGINT
);

-- One row: plans made from now on treat events of this day and all days before it as late.
CREATE TABLE closing (
    id             BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    closed_through BIGINT
);
INSERT INTO closing (id, closed_through) VALUES (1, NULL);

-- I2, the ledger. Integers in billionths of rho (zCDP).
CREATE TABLE budget_blocks (
    dataset        TEXT   NOT NULL,
    epoch          BIGINT NOT NULL,
    limit_nano_rho BIGINT NOT NULL,
    spent_nano_rho BIGINT NOT NULL,
    PRIMARY KEY (dataset, epoch),
    CHECK (spent_nano_rho >= 0 AND spent_nano_rho <= limit_nano_rho)
);
CREATE TABLE budget_charges (
    dataset       TEXT   NOT NULL,
    epoch         BIGINT NOT NULL,
    question      TEXT   NOT NULL,
    cost_nano_rho BIGINT NOT NULL CHECK (cost_nano_rho > 0),
    at_ms         BIGINT NOT NULL,
    PRIMARY KEY (dataset, epoch, question)
);

-- I3: one release per metric and window.
CREATE TABLE releases (
    metric         TEXT             NOT NULL,
    epoch          BIGINT           NOT NULL,
    path           TEXT             NOT NULL,
    blake3         TEXT             NOT NULL,
    row_count      BIGINT           NOT NULL,
    suppressed     BIGINT           NOT NULL,
    nano_rho       BIGINT           NOT NULL,
    epsilon        DOUBLE PRECISION NOT NULL,
    delta          DOUBLE PRECISION NOT NULL,
    released_at_ms BIGINT           NOT NULL,
    PRIMARY KEY (metric, epoch)
);

-- Integrity: where each part stands, and its alerts. An alert with published_position < position waits to be published.
CREATE TABLE integrity_parts (
    part            TEXT   NOT NULL PRIMARY KEY,
    generation      BIGINT NOT NULL,
    owner           TEXT   NOT NULL,
    state_path      TEXT,
    positions       TEXT,
    seen_ms         BIGINT NOT NULL,
    committed_at_ms BIGINT
);
CREATE TABLE alerts (
    fingerprint        TEXT   NOT NULL PRIMARY KEY,
    rule               TEXT   NOT NULL,
    rule_version       BIGINT NOT NULL,
    subject_kind       TEXT   NOT NULL,
    subject            TEXT   NOT NULL,
    severity           TEXT   NOT NULL,
    first_ms           BIGINT NOT NULL,
    last_ms            BIGINT NOT NULL,
    body               TEXT   NOT NULL,
    position           BIGINT NOT NULL UNIQUE,
    published_position BIGINT NOT NULL
);
CREATE TABLE alert_feed (
    id            BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    last_position BIGINT NOT NULL
);
INSERT INTO alert_feed (id, last_position) VALUES (1, 0);

-- I6: the hash chain. once_key: at most one entry may carry it.
CREATE TABLE audit (
    sequence BIGINT NOT NULL PRIMARY KEY,
    at_ms    BIGINT NOT NULL,
    kind     TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    hash     TEXT   NOT NULL,
    once_key TEXT   UNIQUE
);
CREATE TABLE audit_head (
    id       BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    sequence BIGINT NOT NULL,
    hash     TEXT   NOT NULL
);
INSERT INTO audit_head (id, sequence, hash) VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');
