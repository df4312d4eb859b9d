"""Mosec with dynamic batching of up to 32 requests, which it waits for up to 1 ms."""

from __future__ import annotations

from dataclasses import replace

from peers import mosec

PEER = replace(mosec.PEER, name="mosec_batching", variables={"BENCHMARK_BATCH": "32"})
