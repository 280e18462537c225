"""Commands that make pages on which a person sets things."""
