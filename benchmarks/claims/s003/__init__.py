"""Studies of claims of S003."""
