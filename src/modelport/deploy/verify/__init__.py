"""Prove that an endpoint gives a package's answers, in the endpoint's own protocol."""

from modelport.deploy.verify.base import Verification
from modelport.deploy.verify.comparison import to_json
from modelport.deploy.verify.protocols import AUTO, PROTOCOLS
from modelport.deploy.verify.stage import ask_endpoint, verify_endpoint

__all__ = ["AUTO", "PROTOCOLS", "Verification", "ask_endpoint", "to_json", "verify_endpoint"]
