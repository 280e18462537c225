"""What a run may disturb, and how it is put back: the module's state, the random generators, the caller's settings."""
