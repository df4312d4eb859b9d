"""What the passes that remove parts of graphs share: costs, channels that depend on each other."""
