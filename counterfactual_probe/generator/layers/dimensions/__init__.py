"""Which dimension of an activation holds what: declared, or followed through the forward."""
