-- Prices, which are made of public facts: no data is read.
EXPLAIN PRIVACY SELECT COUNT(*) FROM private.person_day

EXPLAIN PRIVACY SELECT country, COUNT(DISTINCT person) FROM private.person_day GROUP BY country

-- Several aggregates share the budget.
EXPLAIN PRIVACY SELECT platform, COUNT(*), SUM(events), AVG(seconds), STDDEV(dp_clip(seconds, 0, 600)) FROM private.person_day GROUP BY platform

EXPLAIN PRIVACY SELECT MEDIAN(seconds), PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY seconds) FROM private.person_day WHERE activity = 'call'

-- A quantile's interval is drawn from the quantile's own budget, where it is asked for.
EXPLAIN PRIVACY SELECT MEDIAN(seconds), dp_low(MEDIAN(seconds)), PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY seconds) FROM private.person_day WHERE activity = 'call'

-- Days are blocks: conditions on the day say which are charged.
EXPLAIN PRIVACY SELECT COUNT(*) FROM private.person_day WHERE day = DATE '2026-01-06'

EXPLAIN PRIVACY SELECT COUNT(*) FROM private.person_day WHERE day >= current_date - INTERVAL '2 days'

EXPLAIN PRIVACY SELECT date_trunc('week', day) = DATE '2026-01-05' AS first_week, COUNT(*) FROM private.person_day GROUP BY 1

-- Groups that are not public are discovered.
EXPLAIN PRIVACY SELECT events / 10 AS bucket, COUNT(*) FROM private.person_day GROUP BY 1

EXPLAIN PRIVACY SELECT country, COUNT(*) FROM private.person_day GROUP BY country SETTINGS groups = 'discovered', groups_per_person = 1

-- Joins with public rows, unions, filters and CASE below the noise.
EXPLAIN PRIVACY SELECT v.region, COUNT(DISTINCT person) FROM private.person_day p JOIN (VALUES ('DE', 'EU'), ('FR', 'EU'), ('US', 'NA')) AS v (country, region) ON p.country = v.country GROUP BY v.region

EXPLAIN PRIVACY SELECT COUNT(*), COUNT(DISTINCT person) FROM (SELECT country, person FROM private.person_day UNION ALL SELECT country, person FROM private.person_day) x

EXPLAIN PRIVACY SELECT CASE WHEN country IN ('DE', 'FR') THEN 'EU' ELSE 'other' END AS region, SUM(CASE WHEN activity = 'call' THEN seconds ELSE 0 END) FROM private.person_day GROUP BY 1

EXPLAIN PRIVACY SELECT COUNT(*) FROM private.person_day WHERE country IN (SELECT c FROM (VALUES ('DE'), ('FR')) AS v (c))

-- Two questions in one statement.
EXPLAIN PRIVACY SELECT a.n, b.n FROM (SELECT COUNT(*) AS n FROM private.person_day WHERE platform = 'web') a, (SELECT COUNT(*) AS n FROM private.visits) b

EXPLAIN PRIVACY SELECT shop, SUM(gain), COUNT(DISTINCT person) FROM private.visits GROUP BY shop SETTINGS epsilon = 0.5

EXPLAIN PRIVACY SELECT version, dp_other() AS rest, COUNT(DISTINCT person) AS people, SUM(seconds) AS seconds FROM private.person_day GROUP BY version SETTINGS other = true, bias = true
