"""What a report says of a layer: on the first screen, and in a chapter of its own."""
