"""What the targets on AWS are made of: places, roles, fronts, files of requests."""
