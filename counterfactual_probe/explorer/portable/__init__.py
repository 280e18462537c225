"""A generator's simplified program as plain data, which a page can compute: operations, and their weights as text."""
