"""Tests of deployments: plans as data, and with the real tools."""
