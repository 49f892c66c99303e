"""Measures how often verdicts err, on made-up data and on the tiny family; writes
docs/statistics.md."""
