"""Parts of other tools; each is imported by that tool alone."""
