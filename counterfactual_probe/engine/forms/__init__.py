"""Forms in which convolutions are computed after the layer, and which of them pays on which processor."""
