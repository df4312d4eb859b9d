"""Pickles, read without importing, constructing or calling anything."""
