"""What the passes that quantize share: source graphs, ranges, corrections."""
