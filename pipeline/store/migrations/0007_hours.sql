-- Windows of hours beside those of days, weeks and months.
CREATE TABLE windows_and_hours (
    span          TEXT   NOT NULL CHECK (span IN ('hour', 'day', 'week', 'month')),
    -- A day, or an hour, as numbers that cannot be mistaken for each other.
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
    -- Of an hour: events that were counted for their day and came too late for it.
    missed_events    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (span, epoch)
);
INSERT INTO windows_and_hours (span, epoch, state, table_path, table_rows, table_bytes, opened_at_ms, closing_at_ms, closed_at_ms, expired_at_ms,
    gathered_through, swept_through)
SELECT span, epoch, state, table_path, table_rows, table_bytes, opened_at_ms, closing_at_ms, closed_at_ms, expired_at_ms, gathered_through, swept_through
FROM windows;
DROP TABLE windows;
ALTER TABLE windows_and_hours RENAME TO windows;

-- Plans made from now on keep nobody in this hour and all hours before it. NULL: hours were never kept.
ALTER TABLE closing ADD COLUMN hours_after BIGINT;
-- Whether plans made from now on keep who was there in hours at all.
ALTER TABLE closing ADD COLUMN hours_on BIGINT NOT NULL DEFAULT 0;
-- The first hour that has everybody: those before it began before hours were kept.
ALTER TABLE closing ADD COLUMN hours_whole_from BIGINT;
-- The same as hours_after, as a plan was made with it. NULL: nobody is kept in any hour.
ALTER TABLE partitions ADD COLUMN plan_hours_after BIGINT;
