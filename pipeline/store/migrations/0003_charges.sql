-- I2: costs are pairs now, rho in billionths and delta in parts of 10^-18; a charge may touch several days; teams spend beside releases.
-- A day that was charged before keeps its meaning: nothing for thresholds, and nothing for questions.
ALTER TABLE budget_blocks ADD COLUMN limit_atto_delta BIGINT NOT NULL DEFAULT 0;
ALTER TABLE budget_blocks ADD COLUMN spent_atto_delta BIGINT NOT NULL DEFAULT 0
    CHECK (spent_atto_delta >= 0 AND spent_atto_delta <= limit_atto_delta);
ALTER TABLE budget_blocks ADD COLUMN teams_limit_nano_rho BIGINT NOT NULL DEFAULT 0;
ALTER TABLE budget_blocks ADD COLUMN teams_spent_nano_rho BIGINT NOT NULL DEFAULT 0
    CHECK (teams_spent_nano_rho >= 0 AND teams_spent_nano_rho <= teams_limit_nano_rho);

-- One row a charge. days: which, in canonical form, such as `20458` or `20458-20464,20470`. team is null: scheduled releases.
-- The cost is that of each day.
CREATE TABLE charges (
    dataset         TEXT   NOT NULL,
    question        TEXT   NOT NULL,
    days            TEXT   NOT NULL,
    day_count       BIGINT NOT NULL CHECK (day_count > 0),
    cost_nano_rho   BIGINT NOT NULL CHECK (cost_nano_rho > 0),
    cost_atto_delta BIGINT NOT NULL CHECK (cost_atto_delta >= 0),
    team            TEXT,
    at_ms           BIGINT NOT NULL,
    PRIMARY KEY (dataset, question, days)
);
CREATE INDEX charges_by_question ON charges (question);
CREATE INDEX charges_by_team ON charges (dataset, team, at_ms);
-- One row for each day of a charge.
CREATE TABLE charged_days (
    dataset  TEXT   NOT NULL,
    epoch    BIGINT NOT NULL,
    question TEXT   NOT NULL,
    days     TEXT   NOT NULL,
    PRIMARY KEY (dataset, epoch, question, days)
);
INSERT INTO charges (dataset, question, days, day_count, cost_nano_rho, cost_atto_delta, team, at_ms)
    SELECT dataset, question, CAST(epoch AS TEXT), 1, cost_nano_rho, 0, NULL, at_ms FROM budget_charges;
INSERT INTO charged_days (dataset, epoch, question, days)
    SELECT dataset, epoch, question, CAST(epoch AS TEXT) FROM budget_charges;
DROP TABLE budget_charges;

-- I3: what a question was answered with, once for ever.
CREATE TABLE answers (
    question    TEXT   NOT NULL PRIMARY KEY,
    path        TEXT   NOT NULL,
    blake3      TEXT   NOT NULL,
    answered_ms BIGINT NOT NULL
);
