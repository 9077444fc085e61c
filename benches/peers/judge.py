#!/usr/bin/env python3
"""How far answers are from the truth.

    judge.py WORKLOAD.parquet --question w1 ANSWER.csv [ANSWER.csv ...]

The truth is computed from the workload, exactly, without bounds. Several answers (of several seeds) are judged one by one and their figures averaged. An answer is CSV or Parquet with the
columns of `common.COLUMNS`.

W1: how many groups were released, how many of them do not exist in the data (a private method that discovers groups releases none such), and for count, sum and people the median over the
large groups (more than 1,000 rows) of |answer - truth| / truth; a large group that is missing counts as 1.
W2: for each quantile the median and the greatest such error over the countries; a missing country counts as 1. The truth is the element of rank ceil(q n) of the n ordered bytes.
"""

import argparse
import json
import math
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

import common

LARGE_ROWS = 1_000


def read_answer(path, question):
    """An answer as {key: (numbers)}."""
    names = common.COLUMNS[question]
    keys = [name for name in names if name in common.KEYS]
    if path.endswith(".parquet"):
        table = pq.read_table(path)
    else:
        # "NA" is a country, not a missing value.
        table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types={key: pa.string() for key in keys}, strings_can_be_null=False))
    missing = [name for name in names if name not in table.column_names]
    if missing:
        sys.exit(f"{path}: no column {', '.join(missing)}; an answer to {question} has {', '.join(names)}")
    values = [table[name].cast(pa.string() if name in keys else pa.float64()).to_pylist() for name in names]
    found = {row[: len(keys)]: row[len(keys) :] for row in zip(*values)}
    if len(found) != table.num_rows:
        sys.exit(f"{path}: a group stands twice in it")
    return found


def truth_of_groups(workload):
    """{(country, platform, version): (count, sum, people)}"""
    table = pq.read_table(workload)
    groups = table.group_by(list(common.KEYS)).aggregate([("bytes", "count"), ("bytes", "sum"), ("user_id", "count_distinct")])
    names = (*common.KEYS, "bytes_count", "bytes_sum", "user_id_count_distinct")
    return {row[:3]: row[3:] for row in zip(*(groups[name].to_pylist() for name in names))}


def truth_of_quantiles(workload):
    """{(country,): (median, 90th percentile)}"""
    table = pq.read_table(workload, columns=["country", "bytes"])
    truth = {}
    for country in pc.unique(table["country"]).to_pylist():
        ordered = np.sort(table.filter(pc.equal(table["country"], country))["bytes"].to_numpy())
        truth[(country,)] = tuple(int(ordered[math.ceil(quantile * len(ordered)) - 1]) for quantile in common.QUANTILES)
    return truth


def errors(found, truth, keys, column):
    """|answer - truth| / truth for each of `keys`, in their order; 1 where there is no answer."""
    return np.array([abs(found[key][column] - truth[key][column]) / truth[key][column] if key in found and found[key][column] is not None else 1.0 for key in keys])


def judge_groups(found, truth):
    large = [key for key in truth if truth[key][0] > LARGE_ROWS]
    if not large:
        sys.exit(f"no group of the workload has more than {LARGE_ROWS:,} rows, so there is nothing to compare: take one of 2,000,000 rows")
    figures = {"groups": len(found), "not_real": sum(key not in truth for key in found)}
    for column, name in enumerate(("count", "sum", "people")):
        figures[name] = float(np.median(errors(found, truth, large, column)))
    return figures


def judge_quantiles(found, truth):
    figures = {"groups": len(found)}
    for column, name in enumerate(("p50", "p90")):
        seen = errors(found, truth, list(truth), column)
        figures |= {f"{name}_med": float(np.median(seen)), f"{name}_max": float(seen.max())}
    return figures


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("workload")
    arguments.add_argument("answers", nargs="+")
    arguments.add_argument("--question", choices=("w1", "w2"), required=True)
    arguments.add_argument("--json", action="store_true", help="one object: the averages, and under `each` the figures of every answer")
    asked = arguments.parse_args()
    truth, judge = {"w1": (truth_of_groups, judge_groups), "w2": (truth_of_quantiles, judge_quantiles)}[asked.question]
    truth = truth(asked.workload)
    each = [judge(read_answer(path, asked.question), truth) for path in asked.answers]
    mean = {name: float(np.mean([figures[name] for figures in each])) for name in each[0]}
    if asked.json:
        print(json.dumps({**mean, "answers": len(each), "each": each}))
        return
    for path, figures in [*zip(asked.answers, each), (f"mean of {len(each)}", mean)]:
        print("  ".join(f"{name} {value:.4f}" if isinstance(value, float) and name != "groups" else f"{name} {value:g}" for name, value in figures.items()), "", path)


if __name__ == "__main__":
    main()
