"""Studies of claims of S004."""
