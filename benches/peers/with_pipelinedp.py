#!/usr/bin/env python3
"""PipelineDP on its local backend (github.com/OpenMined/PipelineDP; noise from Google's C++ library through PyDP).

One DPEngine.aggregate a question, which is its documented use: count, sum, distinct people and the choice of groups share the budget in equal parts, and so do the two quantiles,
which one quantile tree answers.
"""

import pipeline_dp

import common


def main():
    asked = common.asked(__doc__, variants=("laplace", "gaussian"))
    keys = common.KEYS if asked.question == "w1" else ("country",)
    people, sizes, *key_columns = common.columns(asked.workload, "user_id", "bytes", *keys)
    rows = list(zip(people, zip(*key_columns), sizes))

    metrics = {
        "w1": [pipeline_dp.Metrics.COUNT, pipeline_dp.Metrics.SUM, pipeline_dp.Metrics.PRIVACY_ID_COUNT],
        "w2": [pipeline_dp.Metrics.PERCENTILE(100 * quantile) for quantile in common.QUANTILES],
    }[asked.question]
    params = pipeline_dp.AggregateParams(
        metrics=metrics,
        noise_kind=pipeline_dp.NoiseKind.LAPLACE if asked.variant == "laplace" else pipeline_dp.NoiseKind.GAUSSIAN,
        max_partitions_contributed=common.GROUPS_PER_PERSON,
        max_contributions_per_partition=common.EVENTS_PER_GROUP,
        min_value=0,
        max_value=common.BYTES_MAX,
    )
    accountant = pipeline_dp.NaiveBudgetAccountant(total_epsilon=common.EPSILON, total_delta=common.DELTA)
    engine = pipeline_dp.DPEngine(accountant, pipeline_dp.LocalBackend())
    extractors = pipeline_dp.DataExtractors(
        privacy_id_extractor=lambda row: row[0], partition_extractor=lambda row: row[1], value_extractor=lambda row: row[2]
    )
    public = [(country,) for country in common.COUNTRIES] if asked.question == "w2" else None
    result = engine.aggregate(rows, params, extractors, public_partitions=public)
    accountant.compute_budgets()

    fields = {"w1": ("count", "sum", "privacy_id_count"), "w2": ("percentile_50", "percentile_90")}[asked.question]
    common.answer(asked, [(*key, *(getattr(metrics, field) for field in fields)) for key, metrics in result])


if __name__ == "__main__":
    main()
