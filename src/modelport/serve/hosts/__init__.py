"""Platforms that call a function instead of opening a connection: their events and answers."""
