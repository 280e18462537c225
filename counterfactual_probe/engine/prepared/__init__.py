"""A simplified program run on from the edit: batches, caches, and differences that travel alone."""
