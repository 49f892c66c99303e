"""More of what moved than a limit can bound: see docs/drift.md. Called from Python, in a clone."""
