"""Modules of the calls of a layer that runs several times: whether channels keep their module along them."""
