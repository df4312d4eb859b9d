"""One scanner per file format."""
