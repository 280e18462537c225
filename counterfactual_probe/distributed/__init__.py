"""Ranks of torch.distributed: who does what, what they exchange, and how a failure of one reaches all."""
