"""All that knows OpenFace: batches of images in, an action-unit table out."""
