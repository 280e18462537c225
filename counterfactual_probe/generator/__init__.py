"""What a generator is: adapter, latents, layers, unit sets, session, device and saved results."""
