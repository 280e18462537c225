"""Channels grouped by where they act, and how far such modules can be trusted."""
