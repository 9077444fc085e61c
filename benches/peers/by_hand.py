#!/usr/bin/env python3
"""What an engineer writes with Polars and NumPy. Its noise is floating point and therefore NOT private (Mironov 2012); it is here for scale.

`no-noise` is bounding alone: nobody can do better at these bounds. It finds groups by looking, so it releases all.
`gaussian`, W1: one zCDP budget, a third each for people, count and sum; a person's bytes in a group are clipped as one sum; groups are kept where the noisy people exceed a threshold.
`gaussian`, W2: the exponential mechanism on a grid, pure epsilon over 4 countries and both quantiles.
"""

import math
from statistics import NormalDist

import numpy as np
import polars as pl

import common

# Bytes of one person in one group. Of 10,000 to 200,000 about the best on this workload.
SUM_MAX = 30_000
# The share of DELTA that goes to the threshold.
THRESHOLD_DELTA = common.DELTA / 10
CANDIDATES = np.unique(np.rint(np.geomspace(20, common.BYTES_MAX, 464)))


def rho_for(epsilon, delta):
    """The greatest rho whose zCDP implies (epsilon, delta)-DP. Source: Canonne, Kamath, Steinke 2020, proposition 12."""
    alpha = 1 + np.geomspace(1e-3, 1e4, 200_000)
    return float(np.max((epsilon - (math.log(1 / delta) + (alpha - 1) * np.log1p(-1 / alpha) - np.log(alpha)) / (alpha - 1)) / alpha))


def bounded(asked, keys, *aggregates):
    """One row for each person and group that stays: random groups, random events in each."""
    events = pl.col("bytes").clip(0, common.BYTES_MAX).shuffle(asked.seed).head(common.EVENTS_PER_GROUP)
    pairs = pl.scan_parquet(asked.workload).group_by("user_id", *keys).agg(*(aggregate(events) for aggregate in aggregates)).collect()
    return pairs.sample(fraction=1, shuffle=True, seed=asked.seed).group_by("user_id", maintain_order=True).head(common.GROUPS_PER_PERSON)


def groups(asked):
    pairs = bounded(asked, common.KEYS, lambda events: events.len().alias("count"), lambda events: events.sum().alias("sum"))
    noisy = asked.variant == "gaussian"
    total = pl.col("sum").clip(0, SUM_MAX).sum() if noisy else pl.col("sum").sum()
    found = pairs.group_by(common.KEYS).agg(pl.col("count").sum().cast(pl.Float64), total.cast(pl.Float64), pl.len().cast(pl.Float64).alias("people"))
    if not noisy:
        return found
    random = np.random.default_rng(asked.seed)
    rho = rho_for(common.EPSILON, common.DELTA - THRESHOLD_DELTA) / 3
    bounds = {"count": common.EVENTS_PER_GROUP, "sum": SUM_MAX, "people": 1}
    deviations = {name: bound * math.sqrt(common.GROUPS_PER_PERSON / (2 * rho)) for name, bound in bounds.items()}
    found = found.with_columns(pl.col(name) + random.normal(0, deviation, found.height) for name, deviation in deviations.items())
    threshold = 1 + deviations["people"] * NormalDist().inv_cdf(1 - THRESHOLD_DELTA / common.GROUPS_PER_PERSON)
    return found.filter(pl.col("people") > threshold)


def quantiles(asked):
    pairs = bounded(asked, ["country"], lambda events: events)
    random = np.random.default_rng(asked.seed)
    epsilon = common.EPSILON / common.GROUPS_PER_PERSON / len(common.QUANTILES)
    rows = []
    for (country,), sizes in pairs.explode("bytes").group_by("country"):
        sizes = np.sort(sizes["bytes"].to_numpy())
        if asked.variant == "no-noise":
            rows.append((country, *(float(sizes[math.ceil(quantile * len(sizes)) - 1]) for quantile in common.QUANTILES)))
            continue
        picked = []
        for quantile in common.QUANTILES:
            score = -np.abs(np.searchsorted(sizes, CANDIDATES) - quantile * len(sizes))
            sensitivity = common.EVENTS_PER_GROUP * max(quantile, 1 - quantile)
            picked.append(float(CANDIDATES[np.argmax(score * epsilon / (2 * sensitivity) + random.gumbel(size=len(CANDIDATES)))]))
        rows.append((country, *picked))
    return rows


def main():
    asked = common.asked(__doc__, variants=("gaussian", "no-noise"))
    common.answer(asked, groups(asked).select(common.COLUMNS["w1"]).rows() if asked.question == "w1" else quantiles(asked))


if __name__ == "__main__":
    main()
