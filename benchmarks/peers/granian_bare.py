"""Granian's RSGI with a handler that validates nothing: what the transport itself costs."""

from __future__ import annotations

from peers.base import ProgramPeer

PEER = ProgramPeer(name="granian_bare", program="granian_server.py")
