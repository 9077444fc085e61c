-- Alerts on their way to receivers outside. One row: which process sends.
CREATE TABLE sending (
    id         BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    generation BIGINT NOT NULL,
    owner      TEXT   NOT NULL,
    seen_ms    BIGINT NOT NULL
);
INSERT INTO sending (id, generation, owner, seen_ms) VALUES (1, 0, '', 0);

-- How far each receiver has come in the feed, and where the feed ended when it was first met.
CREATE TABLE receivers (
    name     TEXT   NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    began_at BIGINT NOT NULL
);

-- What is to be delivered, as it will be signed. A row goes when it is delivered; one that was given up stays, dead, 30 days at most (P42).
CREATE TABLE deliveries (
    receiver TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    body     TEXT   NOT NULL,
    made_ms  BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next_ms  BIGINT NOT NULL,
    dead     BIGINT NOT NULL CHECK (dead IN (0, 1)),
    fault    TEXT,
    PRIMARY KEY (receiver, id)
);
CREATE INDEX deliveries_by_time ON deliveries (receiver, dead, next_ms);
