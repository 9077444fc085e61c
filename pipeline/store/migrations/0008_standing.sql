-- When an alert was told for the first time, and by which version of which rule, by its first name: a rule's day has an allowance, and verdicts are
-- counted by when their alerts were told and by whom. Of those that were told before this was kept, their last evidence stands for the time.
ALTER TABLE alerts ADD COLUMN told_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE alerts ADD COLUMN told_rule TEXT NOT NULL DEFAULT '';
ALTER TABLE alerts ADD COLUMN told_version BIGINT NOT NULL DEFAULT 0;
UPDATE alerts SET told_ms = last_ms, told_rule = rule, told_version = rule_version;
CREATE INDEX alerts_told ON alerts (told_rule, told_ms);

-- What was found and is not told, 14 days at most. Positions are of the same counter as the feed's; no alert is in both.
CREATE TABLE kept_alerts (
    fingerprint  TEXT   NOT NULL PRIMARY KEY,
    rule         TEXT   NOT NULL,
    rule_version BIGINT NOT NULL,
    subject_kind TEXT   NOT NULL,
    subject      TEXT   NOT NULL,
    severity     TEXT   NOT NULL,
    first_ms     BIGINT NOT NULL,
    last_ms      BIGINT NOT NULL,
    body         TEXT   NOT NULL,
    position     BIGINT NOT NULL UNIQUE,
    -- Why: shadow, canary, expired, allowance or demoted.
    kept_for     TEXT   NOT NULL,
    -- When it was first kept.
    kept_ms      BIGINT NOT NULL
);
CREATE INDEX kept_alerts_by_time ON kept_alerts (kept_ms);

-- Versions of rules, by their first names, that verdicts put back in shadow, and who lifted that. `figures` is the integrity room's JSON.
CREATE TABLE demotions (
    rule          TEXT   NOT NULL,
    rule_version  BIGINT NOT NULL,
    demoted_ms    BIGINT NOT NULL,
    figures       TEXT   NOT NULL,
    restored_ms   BIGINT,
    restored_by   TEXT,
    restored_note TEXT,
    PRIMARY KEY (rule, rule_version, demoted_ms)
);
