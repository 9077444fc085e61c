-- One row per public group, suppressed ones without a value.
SELECT * FROM stats.people_served_daily ORDER BY day, country, platform

-- A bare table name is looked up in stats.
SELECT day, sum(value) AS people FROM people_served_daily WHERE status = 'released' GROUP BY day ORDER BY day

-- Days are pruned by their date.
SELECT country, value FROM stats.people_served_daily WHERE day = DATE '2026-01-06' AND platform = 'android' ORDER BY value DESC NULLS LAST

SELECT count(*) AS rows, count(value) AS released FROM stats.people_served_daily WHERE day >= '2026-01-06'

SELECT count(*) AS none FROM stats.people_served_daily WHERE day > DATE '2030-01-01'

SELECT day, country, platform FROM stats.people_served_daily WHERE value IS NULL ORDER BY 1, 2, 3

-- now() is the clock that was handed in.
SELECT now() AS now, current_date AS today, count(*) AS rows FROM stats.people_served_daily WHERE day >= current_date - INTERVAL '1 day'
