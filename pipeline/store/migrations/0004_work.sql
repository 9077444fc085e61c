-- Where the work on an alert stands: one row for each alert that somebody has done something about. `standing` is the integrity room's JSON.
CREATE TABLE alert_work (
    fingerprint TEXT   NOT NULL PRIMARY KEY,
    step        BIGINT NOT NULL,
    standing    TEXT   NOT NULL,
    updated_ms  BIGINT NOT NULL
);

-- Every step that was ever taken, in order; none is changed.
CREATE TABLE alert_steps (
    fingerprint TEXT   NOT NULL,
    step        BIGINT NOT NULL,
    at_ms       BIGINT NOT NULL,
    by_whom     TEXT   NOT NULL,
    body        TEXT   NOT NULL,
    PRIMARY KEY (fingerprint, step)
);

-- Rules that are not to be heard about a subject for a while.
CREATE TABLE silences (
    rule         TEXT   NOT NULL,
    subject_kind TEXT   NOT NULL,
    subject      TEXT   NOT NULL,
    until_ms     BIGINT NOT NULL,
    body         TEXT   NOT NULL,
    PRIMARY KEY (rule, subject_kind, subject)
);
