"""Changes of figures under load, and times between samples."""

import unittest

from gpucheck.stage_device import interval_words, spacing


class Changes(unittest.TestCase):
    def test_gaps_and_the_lag_are_of_the_load(self):
        kept = [(0.5, 100), (1.1, 150), (1.2, 290), (1.3, 300), (1.5, 300.5), (9.0, 100)]
        words = interval_words(kept, 1.0, 2.0)
        self.assertIn("3 under 1.0 s of load, 100.0 ms apart (10 % 100.0, 90 % 200.0, most 200.0), step 10", words)
        self.assertIn("from 100 to at most 300.5, half of it 200 ms after the load began", words)

    def test_a_figure_that_does_not_move_says_so(self):
        self.assertEqual(interval_words([(0.5, 100)], 1.0, 2.0), "0 changes under load")

    def test_samples_are_apart_by_their_stamps(self):
        self.assertEqual(spacing([0, 20_000, 40_000, 60_000]), "4 samples over 0.1 s, 20.0 ms apart")
        self.assertEqual(spacing([7, 7]), "2 samples")
