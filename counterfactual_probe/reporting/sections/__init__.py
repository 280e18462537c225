"""Sections that other analyses add to a report: each takes a study and gives a ``Section``, found by its name."""
