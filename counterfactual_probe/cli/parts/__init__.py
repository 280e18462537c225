"""The commands on generators and their parts: list, layers, influence, modules and hybridize."""
