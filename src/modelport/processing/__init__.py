"""Declared pre- and post-processing, the same in parity, prediction and serving."""
