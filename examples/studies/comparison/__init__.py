"""Base, tuned and reference in one table: the quantities of arXiv 2605.28860, with controls."""
