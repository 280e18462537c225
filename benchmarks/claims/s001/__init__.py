"""Studies of claims of S001."""
