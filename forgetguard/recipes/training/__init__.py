"""Training recipes over TRL: their settings, the trainers, and what makes a run repeatable."""
