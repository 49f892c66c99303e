"""Renders verdicts: as text for a terminal and as a results file for machines."""
