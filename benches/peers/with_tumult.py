#!/usr/bin/env python3
"""Tumult Analytics on local Spark (docs.tmlt.dev). Needs Java 17; Python workers must be this Python, so PYSPARK_PYTHON is set here.

W1: `get_groups` finds the groups, then count, sum and people, each with a quarter of epsilon; all delta for `get_groups`, pure noise after it. Groups and people are asked of a person's one
row a group: over ten rows a group `get_groups` pays for ten and released 78 groups here.
W2: two quantiles over the listed countries, half of epsilon each.
Its bounds (MaxGroupsPerID, MaxRowsPerGroupPerID) know one grouping column, so a group is one string here.
"""

import os
import sys
import tempfile

os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable

import pyspark.sql.functions as F
from pyspark.sql import SparkSession
from tmlt.analytics import AddRowsWithID, ApproxDPBudget, KeySet, MaxGroupsPerID, MaxRowsPerGroupPerID, PureDPBudget, QueryBuilder, Session

import common

SEPARATOR = "|"


def main():
    asked = common.asked(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        # Two cores, and partitions for them: with Spark's own 200 most of the time is scheduling.
        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.driver.memory", "2g")
            .config("spark.sql.shuffle.partitions", "4")
            .config("spark.sql.warehouse.dir", f"{scratch}/warehouse")
            .config("spark.local.dir", scratch)
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.ui.enabled", "false")
            .getOrCreate()
        )
        spark.sparkContext.setLogLevel("ERROR")
        keys = common.KEYS if asked.question == "w1" else ("country",)
        # Parquet's column is nullable to Spark although nothing is null; Tumult wants nulls dealt with.
        events = spark.read.parquet(asked.workload).select("user_id", F.concat_ws(SEPARATOR, *keys).alias("group"), F.col("bytes"))
        events = events.na.fill(0, ["user_id", "bytes"])
        session = Session.from_dataframe(ApproxDPBudget(common.EPSILON, common.DELTA), "events", events, AddRowsWithID("user_id"))
        common.answer(asked, (groups if asked.question == "w1" else quantiles)(session))
        spark.stop()


def bounded(events):
    return QueryBuilder("events").enforce(MaxGroupsPerID("group", common.GROUPS_PER_PERSON)).enforce(MaxRowsPerGroupPerID("group", events))


def groups(session):
    share = common.EPSILON / 4
    found = session.evaluate(bounded(1).get_groups("group"), ApproxDPBudget(share, common.DELTA))
    # Its rows would be found anew for each query.
    keys = KeySet.from_tuples([tuple(row) for row in found.collect()], columns=["group"])
    by_event, by_person = bounded(common.EVENTS_PER_GROUP).groupby(keys), bounded(1).groupby(keys)
    asked = (by_event.count(), by_event.sum("bytes", 0, common.BYTES_MAX), by_person.count())
    answers = [dict(session.evaluate(query, PureDPBudget(share)).collect()) for query in asked]
    return [(*group.split(SEPARATOR), *(answer[group] for answer in answers)) for group in answers[0]]


def quantiles(session):
    by_country = bounded(common.EVENTS_PER_GROUP).groupby(KeySet.from_dict({"group": list(common.COUNTRIES)}))
    asked = (by_country.quantile("bytes", quantile, 0, common.BYTES_MAX) for quantile in common.QUANTILES)
    answers = [dict(session.evaluate(query, PureDPBudget(common.EPSILON / len(common.QUANTILES))).collect()) for query in asked]
    return [(country, *(answer[country] for answer in answers)) for country in common.COUNTRIES]


if __name__ == "__main__":
    main()
