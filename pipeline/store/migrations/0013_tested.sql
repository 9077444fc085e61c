-- How many subjects a part tested by rules with an e-value, by kind and day: the integrity room's JSON, committed with the part's state. What alerts are
-- chosen at a false-discovery level among is computed from it where it is read.
ALTER TABLE integrity_parts ADD COLUMN tested TEXT;
