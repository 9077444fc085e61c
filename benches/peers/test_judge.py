"""The judge against truths counted by hand; run.sh runs it before anything is measured."""

import contextlib
import io
import os
import tempfile
import unittest

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import judge
import workload


class Judge(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def file(self, name, columns):
        path = os.path.join(self.directory.name, name)
        write = pa.csv.write_csv if name.endswith(".csv") else pq.write_table
        write(pa.table(columns), path)
        return path

    def events(self):
        # Namibia is "NA": a large group of 1,500 rows by 3 people and a small one of 2 rows.
        rows = [(number % 3, "NA", "ios", "1", 10) for number in range(1500)] + [(7, "IN", "web", "2", 5), (7, "IN", "web", "2", 9)]
        return self.file("events.parquet", dict(zip(("user_id", "country", "platform", "version", "bytes"), zip(*rows))))

    def test_the_truth_counts_rows_bytes_and_people(self):
        self.assertEqual(judge.truth_of_groups(self.events()), {("NA", "ios", "1"): (1500, 15000, 3), ("IN", "web", "2"): (2, 14, 1)})

    def test_only_large_groups_count_and_a_missing_one_counts_as_wrong_by_all(self):
        truth = judge.truth_of_groups(self.events())
        answer = {"country": ["NA", "XX"], "platform": ["ios", "ios"], "version": ["1", "1"], "count": [1200, 1], "sum": [18000, 1], "people": [3, 1]}
        for name in ("answer.csv", "answer.parquet"):
            figures = judge.judge_groups(judge.read_answer(self.file(name, answer), "w1"), truth)
            self.assertEqual({name: round(value, 9) for name, value in figures.items()}, {"groups": 2, "not_real": 1, "count": 0.2, "sum": 0.2, "people": 0})
        figures = judge.judge_groups({}, truth)
        self.assertEqual((figures["groups"], figures["count"], figures["sum"], figures["people"]), (0, 1.0, 1.0, 1.0))

    def test_a_quantile_is_the_element_of_that_rank(self):
        events = self.file("events.parquet", {"country": ["IN"] * 10 + ["BR"], "bytes": [*range(10, 110, 10), 7]})
        truth = judge.truth_of_quantiles(events)
        self.assertEqual(truth, {("IN",): (50, 90), ("BR",): (7, 7)})
        figures = judge.judge_quantiles({("IN",): (60.0, 90.0)}, truth)
        self.assertEqual([round(figures[name], 9) for name in ("p50_med", "p50_max", "p90_med", "p90_max")], [0.6, 1.0, 0.5, 1.0])

    def test_an_answer_with_a_group_twice_or_without_a_column_is_refused(self):
        twice = {"country": ["IN", "IN"], "p50": [1.0, 2.0], "p90": [1.0, 2.0]}
        for columns in (twice, {"country": ["IN"], "p50": [1.0]}):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                judge.read_answer(self.file("answer.csv", columns), "w2")

    def test_a_workload_without_a_large_group_is_refused(self):
        with self.assertRaises(SystemExit):
            judge.judge_groups({}, {("IN", "web", "2"): (2, 14, 1)})

    def test_the_same_seed_gives_the_same_events_and_another_one_others(self):
        self.assertEqual(workload.generate(2_000, 1), workload.generate(2_000, 1))
        self.assertNotEqual(workload.generate(2_000, 1), workload.generate(2_000, 2))


if __name__ == "__main__":
    unittest.main()
