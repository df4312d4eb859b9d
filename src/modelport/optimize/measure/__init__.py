"""Variants are timed beside the original, each in a process of its own."""
