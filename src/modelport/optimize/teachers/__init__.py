"""How networks of the user's are taught, one adapter for each framework."""
