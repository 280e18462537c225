"""Progress of influence maps that earlier runs have left, on any number of ranks."""
