"""What a module leads to, and how all of it is put back after a forward."""
