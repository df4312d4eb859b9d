"""Optimize: variants of a model, measured beside the original; only what wins is kept."""
