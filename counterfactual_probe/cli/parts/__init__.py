"""The commands on generators and their parts: list, layers, influence, modules, hybridize, edit, invert."""
