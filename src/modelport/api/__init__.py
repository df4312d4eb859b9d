"""The verbs. Each takes plain values, does one thing, and returns a value.

The command line is a thin layer over this package; so is a notebook.
"""

from modelport.api.build import convert, inspect, pack, scan
from modelport.api.compare import compare_targets
from modelport.api.deploy import (
    Deployment,
    deploy,
    deployment_status,
    destroy,
    plan_deployment,
    plan_json,
    plan_text,
    removal,
    targets,
    write_plan,
)
from modelport.api.diagnose import doctor, doctor_target, doctor_url
from modelport.api.image import build_image
from modelport.api.optimize import Optimization, optimize
from modelport.api.register import history, list_models, promote, pull, push, rollback
from modelport.api.rows import to_rows
from modelport.api.run import predict, serve
from modelport.api.side_by_side import compare
from modelport.api.verify import verification_json, verify
from modelport.core.options import (
    ImageOptions,
    OptimizeOptions,
    PackOptions,
    RegistryOptions,
    ServeOptions,
)

__all__ = [
    "Deployment",
    "ImageOptions",
    "Optimization",
    "OptimizeOptions",
    "PackOptions",
    "RegistryOptions",
    "ServeOptions",
    "build_image",
    "compare",
    "compare_targets",
    "convert",
    "deploy",
    "deployment_status",
    "destroy",
    "doctor",
    "doctor_target",
    "doctor_url",
    "history",
    "inspect",
    "list_models",
    "optimize",
    "pack",
    "plan_deployment",
    "plan_json",
    "plan_text",
    "predict",
    "promote",
    "pull",
    "push",
    "removal",
    "rollback",
    "scan",
    "serve",
    "targets",
    "to_rows",
    "verification_json",
    "verify",
    "write_plan",
]
