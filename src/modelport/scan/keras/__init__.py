"""Keras configurations, and the HDF5 files around them."""
