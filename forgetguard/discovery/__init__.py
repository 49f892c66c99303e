"""Which heads carry a capability: one algorithm a file, each returning scored heads."""
