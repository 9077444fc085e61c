"""What every peer shares: the promise, the questions, how a peer is asked and how it answers. Needs pyarrow only, so that it loads in every peer's environment.

Each peer is a program with the same command line:
    NAME.py WORKLOAD.parquet --question w1|w2 --variant V --seed N --out ANSWER.csv

W1  count, sum of bytes and distinct people by (country, platform, version); which groups exist is to be found out privately.
    Answer: country, platform, version, count, sum, people.
W2  median and 90th percentile of bytes by country; the countries are listed.
    Answer: country, p50, p90.
"""

import argparse

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from workload import COUNTRIES

# The promise, for everything asked in one question together: adding or removing one person, with all their rows, changes the distribution of the answer by no more.
EPSILON = 1.0
DELTA = 1e-8
# Bounds on a person: groups, events in each group, bytes of an event.
GROUPS_PER_PERSON = 4
EVENTS_PER_GROUP = 10
BYTES_MAX = 20_000

KEYS = ("country", "platform", "version")
COLUMNS = {"w1": (*KEYS, "count", "sum", "people"), "w2": ("country", "p50", "p90")}
QUANTILES = (0.5, 0.9)

__all__ = ["COUNTRIES", "EPSILON", "DELTA", "GROUPS_PER_PERSON", "EVENTS_PER_GROUP", "BYTES_MAX", "KEYS", "QUANTILES", "asked", "columns", "answer"]


def asked(description, variants=("default",), questions=("w1", "w2")):
    """The command line of a peer, as an argparse namespace: workload, question, variant, seed, out."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("workload")
    arguments.add_argument("--question", choices=questions, default=questions[0])
    arguments.add_argument("--variant", choices=variants, default=variants[0])
    arguments.add_argument("--seed", type=int, default=1, help="for peers whose noise can be seeded; real mechanisms ignore it")
    arguments.add_argument("--out", required=True)
    return arguments.parse_args()


def columns(workload, *names):
    """Columns of the workload as Python lists, in the order of `names`."""
    table = pq.read_table(workload, columns=list(names))
    return [table[name].to_pylist() for name in names]


def answer(asked, rows):
    """Writes `rows` (tuples in the order of COLUMNS) to the file that was asked for."""
    names = COLUMNS[asked.question]
    pa.csv.write_csv(pa.Table.from_pylist([dict(zip(names, row)) for row in rows], schema=_schema(names)), asked.out)


def _schema(names):
    return pa.schema([(name, pa.string() if name in KEYS else pa.float64()) for name in names])
