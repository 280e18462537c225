"""Studies of claims of S002."""
