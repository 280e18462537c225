"""What every room stands on: errors, files, progress, plug-ins, memory and drawing. Knows nothing of generators."""
