"""One module for each server that is measured; each has one object, ``PEER``."""
