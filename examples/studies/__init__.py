"""What writes pages of docs/ and the tiny family: `python -m examples.studies.NAME`."""
