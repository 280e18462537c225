"""All that a GPU can show, in one command: tests, exactness, determinism, memory, several ranks, speed."""
