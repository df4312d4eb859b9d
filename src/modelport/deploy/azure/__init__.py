"""What the targets on Azure are made of: templates, archives, endpoints."""
