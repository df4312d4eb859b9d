"""Wire formats, walked without the libraries that own them; a cut anywhere shows."""
