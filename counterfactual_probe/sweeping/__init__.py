"""Sweeps: one command for many generators, layers and settings, as jobs that resume, with one table of results."""
