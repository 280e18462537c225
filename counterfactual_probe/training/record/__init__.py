"""What a training writes: folder, model card, state, grids of images, losses."""
