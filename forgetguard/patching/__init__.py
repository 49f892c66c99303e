"""Interventions on attention heads: capture, and the wavefront pass that patches many at once."""
