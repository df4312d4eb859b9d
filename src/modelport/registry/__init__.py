"""Names, numbered versions and movable aliases, with history."""
