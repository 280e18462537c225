"""Module discovery, measured: methods that group channels, on layers whose modules are known, or known to be none."""
