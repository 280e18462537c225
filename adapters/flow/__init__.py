"""Rectified flows (Liu et al. 2023) and how they are trained."""

from .generator import ARCHITECTURE, Flow, UNet, flow, sines

__all__ = ["ARCHITECTURE", "Flow", "UNet", "flow", "sines"]
