-- Releases are numbered in the order in which they were recorded, so that a reader who knows the newest knows whether he knows all, and reads no more
-- than what came since. The number has no default: a process of an earlier version that still releases is to hear that it is one.
CREATE TABLE numbered_releases (
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
    number         BIGINT           NOT NULL UNIQUE,
    PRIMARY KEY (metric, epoch)
);
INSERT INTO numbered_releases (metric, epoch, path, blake3, row_count, suppressed, nano_rho, epsilon, delta, released_at_ms, number)
SELECT metric, epoch, path, blake3, row_count, suppressed, nano_rho, epsilon, delta, released_at_ms,
    ROW_NUMBER() OVER (ORDER BY released_at_ms, metric, epoch)
FROM releases;
DROP TABLE releases;
ALTER TABLE numbered_releases RENAME TO releases;
