"""Devices that tests run on: a GPU where there is one, and a stand-in for it where there is none."""
