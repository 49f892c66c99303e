"""Declared limits in, verdicts out: the YAML schema, the statistics, the decision."""
