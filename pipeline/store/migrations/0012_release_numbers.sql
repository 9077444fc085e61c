-- Releases are numbered in the order in which they were recorded, so that a reader who knows the newest knows whether he knows all, and reads no more
-- than what came since.
ALTER TABLE releases ADD COLUMN number BIGINT NOT NULL DEFAULT 0;
UPDATE releases SET number = numbered.number
FROM (SELECT metric, epoch, ROW_NUMBER() OVER (ORDER BY released_at_ms, metric, epoch) AS number FROM releases) AS numbered
WHERE numbered.metric = releases.metric AND numbered.epoch = releases.epoch;
CREATE UNIQUE INDEX releases_by_number ON releases (number);
