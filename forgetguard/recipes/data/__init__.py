"""Questions the recipes train on: reading, splitting, rewarding, a small synthetic task."""
