-- The id of the topic that a source is read from (KIP-516). A topic that was deleted and made anew has another id, and its offsets mean
-- nothing to the progress kept here.
CREATE TABLE topics (
    source   TEXT   NOT NULL PRIMARY KEY,
    topic_id TEXT   NOT NULL,
    since_ms BIGINT NOT NULL
);

-- How far the log is known to be the one that was read: the message before offset `checkpoint` was written under this leader epoch (KIP-320).
-- Never beyond next_offset.
ALTER TABLE partitions ADD COLUMN checkpoint BIGINT;
ALTER TABLE partitions ADD COLUMN checkpoint_epoch BIGINT;
