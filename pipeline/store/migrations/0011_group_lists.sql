-- The operator's lists of hashes of groups' names, descriptions and photos, as `minimize` keeps them: a version a row, and those alone that are in force
-- or that an open plan names.
CREATE TABLE group_lists (
    version  BIGINT NOT NULL PRIMARY KEY,
    content  TEXT   NOT NULL,
    since_ms BIGINT NOT NULL
);
-- The version that plans made from now on are held against. NULL: none.
ALTER TABLE closing ADD COLUMN group_lists BIGINT;
-- The newest version there was: none has the number of another.
ALTER TABLE closing ADD COLUMN group_lists_made BIGINT NOT NULL DEFAULT 0;
-- The version that a plan was made with. NULL: none.
ALTER TABLE partitions ADD COLUMN plan_group_lists BIGINT;
