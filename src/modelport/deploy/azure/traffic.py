"""Shares of an endpoint's traffic among its deployments."""

from __future__ import annotations

from collections.abc import Mapping


def shift(shares: Mapping[str, int], name: str, percent: int, *, fill: bool) -> dict[str, int]:
    """Shares with `percent` for one deployment, and the others in proportion to before.

    Parameters
    ----------
    shares : mapping of str to int
    name : str
    percent : int
    fill : bool
        Whether all shares make 100, as Azure insists for traffic, not for its copies: where
        there is no other deployment, this one gets everything, or there is none.
    """
    others = {key: value for key, value in shares.items() if key != name and value}
    chosen = {name: percent} if percent else {}
    if not fill:
        return chosen  # Azure copies to one deployment only
    total, rest = sum(others.values()), 100 - percent
    if not total or not rest:
        return {name: 100} if percent else {}
    scaled = {key: value * rest // total for key, value in others.items()}
    largest = max(others, key=lambda key: others[key])
    scaled[largest] += rest - sum(scaled.values())
    return {key: value for key, value in {**scaled, **chosen}.items() if value}


def shares_of(traffic: Mapping[str, int] | None) -> dict[str, int]:
    """What an endpoint says of its traffic, without those that have none."""
    return {name: int(share) for name, share in (traffic or {}).items() if int(share)}
