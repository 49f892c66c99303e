"""Base, tuned and reference: what they are, whether they belong together, how they are loaded."""
