"""One platform per file: what has to be written and called to run a package there."""
