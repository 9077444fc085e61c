SELECT name, title, dataset, unit, dimensions, groups_per_person, bounds, rho, threshold_delta, windows_released, newest_day FROM meta.metrics ORDER BY name

SELECT name, query, delta, epsilon > 0.05 AND epsilon < 1 AS plausible FROM meta.metrics WHERE name IN ('messages_daily', 'people_served_daily') ORDER BY name

SELECT dataset, day, limit_rho, spent_rho, left_rho, delta, charges, spent_epsilon < limit_epsilon AS within FROM meta.budget ORDER BY day

SELECT dataset, day, question, rho, delta, charged_at FROM meta.charges ORDER BY day, question

SELECT metric, day, rows, suppressed, rho, delta, released_at, file, length(blake3) AS hex FROM meta.releases ORDER BY metric, day

SHOW TABLES

DESCRIBE stats.messages_daily

DESC call_minutes_daily

SHOW COLUMNS FROM meta.budget

SELECT table_schema, table_name, count(*) AS columns, count(*) = count(nullif(comment, '')) AS all_explained FROM meta.columns GROUP BY 1, 2 ORDER BY 1, 2

EXPLAIN SELECT country, sum(value) FROM stats.people_served_daily WHERE day = DATE '2026-01-06' GROUP BY country
