"""What the targets on Google Cloud are made of: places, traffic, resources."""
