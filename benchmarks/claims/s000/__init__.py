"""Studies of claims of S000."""
