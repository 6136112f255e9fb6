"""Budget, report, and the stages' order of failure: what a late or broken stage leaves behind."""

import contextlib
import io
import json
import unittest

from gpucheck import __main__ as run
from gpucheck.budget import Budget, Deadline, Late
from gpucheck.report import CELL, DIFFERS, OK, Report


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Budgets(unittest.TestCase):
    def test_a_stage_gets_no_more_than_is_left(self):
        clock = Clock()
        budget = Budget(60, clock)
        self.assertEqual(budget.stage(40, 10).seconds, 40)
        clock.now += 50
        self.assertEqual(budget.stage(40, 10).seconds, 10)
        clock.now += 1
        with self.assertRaises(Late):
            budget.stage(40, 10)

    def test_a_deadline_passes(self):
        clock = Clock()
        deadline = Deadline(5, clock)
        self.assertTrue(deadline.has(5))
        self.assertEqual(deadline.left(), 5)
        clock.now += 5
        self.assertFalse(deadline.has(1))
        with self.assertRaises(Late):
            deadline.left()

    def test_the_stages_fit_and_each_can_begin(self):
        self.assertLessEqual(run.BUDGET_S + run.GRACE_S, 480)
        for name, _, limit, least in run.STAGES:
            self.assertLess(least, limit, name)


class Chosen(unittest.TestCase):
    def test_all_some_or_a_family(self):
        self.assertEqual(run.chosen(None), [name for name, *_ in run.STAGES])
        self.assertEqual(run.chosen("counts,machine"), ["machine", "counts"])
        self.assertEqual(run.chosen("server own"), ["server own"])
        self.assertEqual(run.chosen("server"), ["server own", "server tiny", "server 1b"])

    def test_what_there_is_not_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "no such stage: speed; there are: machine, calls"):
            run.chosen("machine,speed")


class Reports(unittest.TestCase):
    def test_rows_are_counted_by_verdict(self):
        report = Report("heading")
        report.equal("s", "same", 3, 3, "other")
        report.equal("s", "not", 3, 4, "other")
        report.skip("s", "gone", "why")
        report.add("s", "fact", "1")
        text = report.markdown()
        self.assertIn("| s | same | gpuspan 3, other 3 | ok |", text)
        self.assertIn(f"| s | not | gpuspan 3, other 4 | {DIFFERS} |", text)
        self.assertTrue(text.endswith("1 agree, 1 differ, 1 skipped\n"))
        self.assertEqual(len(json.loads(report.json())["rows"]), 4)

    def test_no_cell_breaks_the_table(self):
        report = Report("heading")
        report.add("s", "a|b", "x\n" * 500)
        row = report.markdown().splitlines()[4]
        self.assertIn("a\\|b", row)
        self.assertLess(len(row), CELL + 40)


class Context:
    def __init__(self):
        self.report = Report("heading")


class Stages(unittest.TestCase):
    def run_stages(self, *stages):
        context, kept = Context(), run.STAGES
        run.STAGES = [(name, stage, 10, 1) for name, stage in stages]
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                run.run(context, Budget(100), run.chosen(None))
        finally:
            run.STAGES = kept
        return [(row["stage"], row["verdict"]) for row in context.report.rows]

    def test_a_stage_that_fails_keeps_its_rows_and_the_others(self):
        def breaks(context, _):
            context.report.add("one", "first", "x", OK)
            raise ValueError("surprise")

        rows = self.run_stages(("one", breaks), ("two", lambda context, _: context.report.add("two", "row", "x", OK)))
        self.assertEqual(rows, [("one", OK), ("one", "skipped"), ("two", OK)])

    def test_a_late_stage_says_so(self):
        def late(context, deadline):
            deadline.end = 0
            deadline.left()

        self.assertEqual(self.run_stages(("one", late)), [("one", "skipped")])
