"""Files that are wrong in every way: hostile, damaged, of another kind, or larger than memory."""
