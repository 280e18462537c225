"""Run a simplified program from the edited layer on: batches, caches, and low-precision differences."""
