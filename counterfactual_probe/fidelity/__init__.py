"""How good hybrids are as images: Fréchet distances and realism."""
