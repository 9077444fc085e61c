#!/usr/bin/env python3
"""OpenDP's Polars API (docs.opendp.org, `opendp[polars]`).

W1, `two-*`: the way of its user guide. One query counts people and finds the groups, a second one counts and sums in those. Each of the three aggregates gets the same share.
W1, `one-*`: one query, which its planner accepts too: rows are first added up per person and group, so that a person's bytes in a group are one value and the spend is one. That value is
clipped to SUM_MAX where `two-*` pays for ten events of 20,000.
W2: the exponential mechanism on a grid of candidates, both quantiles in one query, countries listed.

`*-laplace` is (epsilon, delta) with all delta for the threshold; `*-gaussian` is zCDP at the rho that gives epsilon with DELTA less the threshold's share.

Seen in 0.16.0: truncate_num_groups(k) keeps k - 1 groups and pays for k (it ranks from 1 and asks for rank < k), so we are charged for 4 and get 3, and `<=` in a filter of one's own is charged for 5;
its default, keep="sample", fails with "multiple fields with name" for every key, so keep="first" is what remains: the first groups in the order of their names.
"""

import math

import numpy as np
import opendp.prelude as dp
import polars as pl

import common

KEYS = list(common.KEYS)
# Bytes of one person in one group, `one-*` only. Of 10,000 to 200,000 about the best on this workload, so it flatters the peer a little.
SUM_MAX = 30_000
# The threshold's share of DELTA under zCDP.
THRESHOLD_DELTA = common.DELTA / 10
# Candidates for quantiles: 1.5 % apart.
CANDIDATES = np.unique(np.rint(np.geomspace(20, common.BYTES_MAX, 464)).astype(int)).tolist()
# Public upper bounds on the data that sums and quantiles of OpenDP ask for.
ROWS_MAX = 100_000_000
GROUPS_MAX = 60 * 3 * 40


def rho_for(epsilon, delta):
    """The greatest rho whose zCDP implies (epsilon, delta)-DP. Source: Canonne, Kamath, Steinke 2020, proposition 12, which OpenDP uses as well."""
    alpha = 1 + np.geomspace(1e-3, 1e4, 200_000)
    return float(np.max((epsilon - (math.log(1 / delta) + (alpha - 1) * np.log1p(-1 / alpha) - np.log(alpha)) / (alpha - 1)) / alpha))


def context(asked, keys, threshold, weights):
    if asked.variant.endswith("laplace"):
        loss = dp.loss_of(epsilon=common.EPSILON, delta=common.DELTA) if threshold else dp.loss_of(epsilon=common.EPSILON)
    elif threshold:
        loss = dp.loss_of(rho=rho_for(common.EPSILON, common.DELTA - THRESHOLD_DELTA), delta=THRESHOLD_DELTA)
    else:
        loss = dp.loss_of(rho=rho_for(common.EPSILON, common.DELTA))
    return dp.Context.compositor(
        data=pl.scan_parquet(asked.workload).select("user_id", "bytes", *keys),
        privacy_unit=dp.unit_of(contributions=1, identifier="user_id"),
        privacy_loss=loss,
        split_by_weights=weights,
        margins=[dp.polars.Margin(by=by, max_length=ROWS_MAX, max_groups=GROUPS_MAX) for by in ([], keys)],
    )


def bounded(context, keys, events):
    return context.query().truncate_per_group(events, by=keys).truncate_num_groups(common.GROUPS_PER_PERSON, by=keys, keep="first")


def two_queries(asked):
    asking = context(asked, KEYS, threshold=True, weights=[1, 2])
    people = bounded(asking, KEYS, 1).group_by(KEYS).agg(dp.len(signed=True).alias("people")).release().collect()
    sums = (
        bounded(asking, KEYS, common.EVENTS_PER_GROUP)
        .group_by(KEYS)
        .agg(dp.len(signed=True).alias("count"), pl.col("bytes").fill_null(0).dp.sum((0, common.BYTES_MAX)).alias("sum"))
        .with_keys(people.select(KEYS))
        .release()
        .collect()
    )
    return people.join(sums, on=KEYS)


def one_query(asked):
    return (
        bounded(context(asked, KEYS, threshold=True, weights=[1]), KEYS, common.EVENTS_PER_GROUP)
        .group_by(["user_id", *KEYS])
        .agg(pl.len().alias("events"), pl.col("bytes").clip(0, common.BYTES_MAX).sum())
        .group_by(KEYS)
        .agg(
            dp.len(signed=True).alias("people"),
            pl.col("events").cast(pl.Int64).fill_null(0).dp.sum((0, common.EVENTS_PER_GROUP)).alias("count"),
            pl.col("bytes").fill_null(0).dp.sum((0, SUM_MAX)).alias("sum"),
        )
        .release()
        .collect()
    )


def quantiles(asked):
    return (
        bounded(context(asked, ["country"], threshold=False, weights=[1]), ["country"], common.EVENTS_PER_GROUP)
        .group_by("country")
        .agg(*(pl.col("bytes").fill_null(0).dp.quantile(quantile, CANDIDATES).alias(f"p{quantile:.0%}"[:-1]) for quantile in common.QUANTILES))
        .with_keys(pl.LazyFrame({"country": list(common.COUNTRIES)}))
        .release()
        .collect()
    )


def main():
    asked = common.asked(__doc__, variants=("two-laplace", "two-gaussian", "one-laplace", "one-gaussian"))
    dp.enable_features("contrib", "honest-but-curious")
    if asked.question == "w2":
        result = quantiles(asked)
    else:
        result = (two_queries if asked.variant.startswith("two") else one_query)(asked)
    common.answer(asked, result.select(common.COLUMNS[asked.question]).rows())


if __name__ == "__main__":
    main()
