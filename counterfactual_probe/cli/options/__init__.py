"""Options that several commands take, each group with what it means."""
