"""A forward as a list of tensor operations, and how it is simplified."""
