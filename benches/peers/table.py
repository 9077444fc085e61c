#!/usr/bin/env python3
"""One table of all answers that run.sh has kept: table.py WORKLOAD.parquet ANSWERS_DIRECTORY

Files: NAME-QUESTION-SEED.csv (the answer), .json (what measure.py saw), or .why (one line). CPU, memory, load and errors are means over the runs; memory is the greatest.
"""

import argparse
import json
import pathlib
import re

import numpy as np

import judge

NAME = re.compile(r"(?P<peer>.+)-(?P<question>w1|w2|all)-(?P<seed>\d+)")
COLUMNS = {"w1": ("groups", "count", "sum", "people"), "w2": ("groups", "p50_med", "p50_max", "p90_med", "p90_max")}


def runs(directory, question):
    """{peer: [path without suffix, ...]} of the answers to a question."""
    found = {}
    for path in sorted(directory.glob(f"*-{question}-*.json")):
        if path.with_suffix(".csv").exists():
            found.setdefault(NAME.fullmatch(path.stem)["peer"], []).append(path)
    return found


def line(paths, judged):
    """One peer's cells."""
    spent = [json.loads(path.read_text()) for path in paths]
    figures = {"runs": len(paths), "cpu_s": np.mean([run["cpu_s"] for run in spent]), "peak_mib": max(run["peak_mib"] for run in spent), "load": np.mean([run["load"] for run in spent])}
    return figures | {name: float(np.mean([one[name] for one in judged])) for name in judged[0]}


def show(name, value):
    if name in ("runs", "peak_mib", "groups", "not_real"):
        return f"{value:.0f}"
    return f"{value:.1f}" if name in ("cpu_s", "load") else f"{value:.4f}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("workload")
    arguments.add_argument("answers", type=pathlib.Path)
    asked = arguments.parse_args()
    for question, truth, judged in (("w1", judge.truth_of_groups, judge.judge_groups), ("w2", judge.truth_of_quantiles, judge.judge_quantiles)):
        truth = truth(asked.workload)
        names = ("runs", "cpu_s", "peak_mib", "load", *COLUMNS[question])
        print(f"# {question.upper()}" + (f": {len(truth):,} groups, {sum(row[0] > judge.LARGE_ROWS for row in truth.values())} large" if question == "w1" else ""))
        print(f"{'':24}" + "".join(f"{name:>10}" for name in names))
        for peer, paths in runs(asked.answers, question).items():
            figures = line(paths, [judged(judge.read_answer(str(path.with_suffix(".csv")), question), truth) for path in paths])
            print(f"{peer:24}" + "".join(f"{show(name, figures[name]):>10}" for name in names))
    for path in sorted(asked.answers.glob("*.why")):
        named = NAME.fullmatch(path.stem)
        print(f"{named['peer']} {named['question']}: {path.read_text().strip()}")


if __name__ == "__main__":
    main()
