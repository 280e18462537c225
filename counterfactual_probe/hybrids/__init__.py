"""Images with channels of some layers set to the values of another latent."""
