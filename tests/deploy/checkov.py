"""checkov, in an environment of its own, on a file that was generated."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

CHECKOV: Final = Path(__file__).parents[2] / ".venv" / "checkov" / "bin" / "checkov"


def assert_clean(path: Path, *, skipped: set[str], framework: str = "arm") -> None:
    """No check fails; exactly these are passed over, each with its reason in the file."""
    if not CHECKOV.exists():
        assert "CI" not in os.environ, "checkov is missing: make tools"
        pytest.skip("checkov is missing: make tools")
    done = subprocess.run(
        [str(CHECKOV), "--framework", framework, "-f", str(path), "-o", "json",
         "--skip-download"],
        capture_output=True, text=True, timeout=240, check=False, cwd=path.parent,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert "results" in report, "checkov knows no resource of this file"
    assert not report["results"]["parsing_errors"]
    failed = [(c["check_id"], c["check_name"]) for c in report["results"]["failed_checks"]]
    assert not failed, failed
    over = report["results"]["skipped_checks"]
    assert {check["check_id"] for check in over} == skipped
    assert all(check["check_result"]["suppress_comment"].strip() for check in over)
