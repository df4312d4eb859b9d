"""Classic models from their package to a smaller one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelport import api
from modelport.core.options import OptimizeOptions
from modelport.core.package import open_package
from tests.optimize.tables import agreement, run, two_classes
from tests.optimize.test_vocabulary import texts_of


@pytest.mark.slow
def test_a_forest(tmp_path: Path) -> None:
    rows, labels = two_classes()
    model = RandomForestClassifier(30, min_samples_leaf=3, random_state=0)
    package = api.pack(
        model.fit(rows[:800], labels[:800]), "forest", sample=rows[:100], out=tmp_path / "parent"
    )
    data = {"input": rows[800:], "right": labels[800:]}
    found = api.optimize(
        str(package.path), data, out=tmp_path / "out",
        options=OptimizeOptions(
            target="right", passes="trees", max_drop=0.03
        ),
    )  # fmt: skip
    assert found.package is not None
    smaller = open_package(found.package.path)
    assert smaller.manifest.signature == package.manifest.signature
    assert smaller.model_path.stat().st_size < 0.8 * package.model_path.stat().st_size
    before, after = (run(p.model_path.read_bytes(), {"input": rows[800:]})
                     for p in (package, smaller))  # fmt: skip
    assert agreement(before, after) > 0.93
    picked = next(p for p in found.report["variants"] if p["name"] == found.report["picked"])
    assert picked["loss"]["high"] <= 0.03


@pytest.mark.slow
def test_a_text_pipeline(tmp_path: Path) -> None:
    texts, labels = texts_of(2400)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    package = api.pack(
        model.fit(texts[:600], labels[:600]), "texts", sample=texts[:100], out=tmp_path / "parent"
    )
    found = api.optimize(
        str(package.path), np.asarray(texts[600:]), out=tmp_path / "out",
        options=OptimizeOptions(passes="vocabulary", max_drop=0.03),
    )  # fmt: skip
    assert found.package is not None
    smaller = found.package.model_path.stat().st_size
    assert smaller < 0.3 * package.model_path.stat().st_size
