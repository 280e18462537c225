"""A forward written down as a list of operations, and simplified."""
