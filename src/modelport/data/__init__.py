"""Reading sample and input files."""
