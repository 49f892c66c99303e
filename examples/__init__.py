"""What is run from a clone of the project: demonstrations, and the studies behind docs/."""
