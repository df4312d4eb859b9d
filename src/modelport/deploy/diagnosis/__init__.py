"""From what is seen to what is wrong: causes of failures of endpoints and deployments."""

from modelport.deploy.diagnosis.base import Finding
from modelport.deploy.diagnosis.endpoint import diagnose_endpoint
from modelport.deploy.diagnosis.target import diagnose_target

__all__ = ["Finding", "diagnose_endpoint", "diagnose_target"]
