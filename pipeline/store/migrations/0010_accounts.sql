-- Accounts of what is done to the pipeline itself, for whoever watches over it. Numbers of events and of deeds, never which.

-- What became of events, by the hour to which their partition had been read: an outcome's label, or `behind`, which counts events again that lay more
-- than an hour behind. Independent of when they were read and how they were cut into ranges. The order is that of looking: the newest hours.
CREATE TABLE partition_hours (
    hour    BIGINT NOT NULL,
    source  TEXT   NOT NULL,
    number  BIGINT NOT NULL,
    what    TEXT   NOT NULL,
    events  BIGINT NOT NULL CHECK (events >= 0),
    PRIMARY KEY (hour, source, number, what)
);

-- What was refused to, and looked up by, whom at the doors, by the hour of the clock. `kind` is `principal` or `door`; a principal is somebody of the
-- staff.
CREATE TABLE door_hours (
    hour  BIGINT NOT NULL,
    kind  TEXT   NOT NULL CHECK (kind IN ('principal', 'door')),
    name  TEXT   NOT NULL,
    what  TEXT   NOT NULL,
    times BIGINT NOT NULL CHECK (times >= 0),
    PRIMARY KEY (hour, kind, name, what)
);
