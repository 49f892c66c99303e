"""The reference suite: a family of fine-tunes, measured, compared, and held against the papers."""
