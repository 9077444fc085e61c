-- A metric without releases has its columns and no rows.
SELECT * FROM stats.call_minutes_daily

SELECT count(*) AS rows, sum(value) AS minutes FROM stats.call_minutes_daily

-- WITH, joins, window functions, set operations.
WITH p AS (SELECT day, country, sum(value) AS people FROM stats.people_served_daily GROUP BY day, country),
     m AS (SELECT day, country, sum(value) AS messages FROM stats.messages_daily GROUP BY day, country)
SELECT p.day, p.country, people, messages, round(messages / people, 2) AS per_person
FROM p LEFT JOIN m ON p.day = m.day AND p.country = m.country
ORDER BY p.day, p.country

SELECT country, day, people, people - lag(people) OVER (PARTITION BY country ORDER BY day) AS change
FROM (SELECT country, day, sum(value) AS people FROM stats.people_served_daily GROUP BY country, day) AS d
ORDER BY country, day

SELECT country FROM stats.people_served_daily EXCEPT SELECT country FROM stats.messages_daily ORDER BY country

SELECT 'people' AS what, count(*) AS rows FROM stats.people_served_daily UNION ALL SELECT 'messages', count(*) FROM stats.messages_daily ORDER BY what

SELECT * FROM (VALUES (1, 'one'), (2, 'two')) AS t (n, word) ORDER BY n

VALUES (1), (2)

SELECT day, country, value FROM stats.messages_daily m
WHERE value = (SELECT max(value) FROM stats.messages_daily WHERE day = m.day AND country <> 'ZZ') ORDER BY day

SELECT DISTINCT country FROM stats.messages_daily WHERE country IN (SELECT country FROM stats.people_served_daily) AND EXISTS (SELECT 1) ORDER BY country

SELECT country, grouping(country) AS all_countries, count(*) AS rows FROM stats.people_served_daily GROUP BY ROLLUP (country) ORDER BY 2, 1

SELECT country, CASE WHEN value > 1000 THEN 'large' WHEN value IS NULL THEN 'suppressed' ELSE 'small' END AS size
FROM stats.people_served_daily WHERE day = DATE '2026-01-05' AND platform = 'ios' ORDER BY country

SELECT date_trunc('month', day) AS month, extract(year FROM day) AS year, to_char(day, '%d.%m.%Y') AS written, upper(country) || '/' || platform AS place
FROM stats.people_served_daily WHERE country LIKE 'D%' ORDER BY written, place LIMIT 2

SELECT count(*) FILTER (WHERE status = 'suppressed') AS suppressed, median(value) AS median, stddev(value) > 0 AS spread FROM stats.people_served_daily

SELECT 7 / 2 AS whole, 7 % 2 AS rest, TRY_CAST('x' AS INT) AS none, position('b' IN 'abc') AS place, trim('  x ') AS trimmed, substring('abcd' FROM 2 FOR 2) AS part

SELECT * EXCLUDE (low, high, stddev, epsilon, delta) FROM stats.messages_daily WHERE country = 'DE'

SELECT country, platform, value FROM stats.people_served_daily WHERE value > 0 QUALIFY row_number() OVER (PARTITION BY country ORDER BY value DESC) = 1 ORDER BY country

SELECT country || '-' || platform AS place, lpad(platform, 10, '.') AS padded, replace(platform, 'o', '00') AS replaced
FROM stats.people_served_daily WHERE day = DATE '2026-01-05' ORDER BY place LIMIT 2

SELECT approx_distinct(country) AS countries, corr(value, high) > 0.99 AS straight, first_value(country ORDER BY value DESC) AS top FROM stats.people_served_daily WHERE value IS NOT NULL
