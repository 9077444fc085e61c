-- Windows of weeks and months beside those of days: a window is a span and its first day.
CREATE TABLE windows_by_span (
    span          TEXT   NOT NULL CHECK (span IN ('day', 'week', 'month')),
    epoch         BIGINT NOT NULL,
    state         TEXT   NOT NULL CHECK (state IN ('open', 'closing', 'closed', 'incomplete')),
    table_path    TEXT,
    table_rows    BIGINT,
    table_bytes   BIGINT,
    opened_at_ms  BIGINT NOT NULL,
    closing_at_ms BIGINT,
    closed_at_ms  BIGINT,
    expired_at_ms BIGINT,
    -- Of a week or month: the newest closed day since whose close its segments are one.
    gathered_through BIGINT,
    -- The same, with the files of what was gathered gone.
    swept_through    BIGINT,
    PRIMARY KEY (span, epoch)
);
INSERT INTO windows_by_span SELECT 'day', epoch, state, table_path, table_rows, table_bytes, opened_at_ms, closing_at_ms, closed_at_ms, expired_at_ms, NULL, NULL FROM windows;
DROP TABLE windows;
ALTER TABLE windows_by_span RENAME TO windows;

ALTER TABLE segments ADD COLUMN span TEXT NOT NULL DEFAULT 'day';
DROP INDEX segments_by_epoch;
CREATE INDEX segments_by_window ON segments (span, epoch);
