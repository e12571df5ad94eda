"""Metrics that need weights: why they are not computed, and what a folder must hold."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lapvqa import __version__
from lapvqa.errors import ConfigError
from lapvqa.metrics.classification import NUM_BINS
from lapvqa.metrics.panel import Panel
from lapvqa.metrics.record import DEFINITIONS, base_name, describe
from lapvqa.metrics.texts import neural, ngrams, short_answers
from lapvqa.metrics.texts.ngrams import text_panel

TEXTS = (["no effusion"], ["no effusion"])


def _panels(folder: Path | None) -> dict[str, Panel]:
    return {
        "bert_score": neural.bertscore_panel(*TEXTS, weights=folder, num_layers=2),
        "radgraph": neural.radgraph_panel(*TEXTS, weights=folder),
        "f1chexbert": neural.chexbert_panel(*TEXTS, weights=folder),
    }


def test_without_weights_nothing_is_computed_and_that_is_said() -> None:
    for panel in _panels(None).values():
        assert set(panel.undefined) == set(panel.names)
        assert set(panel.undefined.values()) == {"not computed: weights not given"}
        assert np.isnan(panel.statistic(np.ones((2, 1)))).all()


def test_without_the_package_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for package, panel in _panels(tmp_path).items():
        assert set(panel.undefined.values()) == {f"not computed: {package} not installed"}


def test_an_incomplete_folder_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="expected chexbert.pth, found none"):
        neural.chexbert_panel(*TEXTS, weights=tmp_path)
    (tmp_path / "chexbert.pth").touch()
    with pytest.raises(ConfigError, match=r"expected bert-base-uncased/config.json, found none"):
        neural.chexbert_panel(*TEXTS, weights=tmp_path)
    with pytest.raises(ConfigError, match=r"expected radgraph-xl/config.json, found none"):
        neural.radgraph_panel(*TEXTS, weights=tmp_path)
    with pytest.raises(ConfigError, match=r"expected config.json, found none"):
        neural.bertscore_panel(*TEXTS, weights=tmp_path, num_layers=1)


def test_every_metric_has_a_record() -> None:
    panels = [*_panels(None).values(), text_panel(*TEXTS)]
    for panel in panels:
        for name, record in describe(panel.names, num_items=7).items():
            assert record["num_items"] == 7
            assert all(record[key] for key in record if key != "version"), name
    json.dumps(describe(DEFINITIONS, num_items=1), allow_nan=False)
    assert describe(["rouge1", "auc/Edema", "mean_auc"], num_items=1).keys() == {"rouge1", "auc"}
    assert describe(["rouge1"], num_items=1)["rouge1"]["version"] == __version__
    assert describe(["radgraph_simple"], num_items=1)["radgraph_simple"]["package"] == "radgraph"


def test_the_record_says_what_the_modules_do() -> None:
    for name in (*ngrams.BLEU_NAMES, "cider_d"):
        assert DEFINITIONS[name].tokenisation == ngrams.TOKENISATION
    assert set(ngrams.ROUGE_TYPES) < set(DEFINITIONS)
    for name in ("exact_match", "token_f1", "closed_f1"):
        assert DEFINITIONS[name].tokenisation == short_answers.NORMALISATION
    bins = NUM_BINS
    assert f"bins {bins} of equal width: [0, 1/{bins}], (1/{bins}, 2/{bins}], ..." in (
        DEFINITIONS["ece"].implementation
    )


def test_a_metric_without_a_definition_is_refused() -> None:
    assert base_name("mean_ap40") == base_name("ap40/Nodule/Mass") == "ap40"
    with pytest.raises(KeyError, match="fancy"):
        describe(["fancy/Edema"], num_items=1)


def test_the_room_loads_no_torch_and_no_optional_package() -> None:
    code = (
        "import pkgutil, importlib, sys, lapvqa.metrics as room\n"
        "for one in pkgutil.walk_packages(room.__path__, 'lapvqa.metrics.'):\n"
        "    importlib.import_module(one.name)\n"
        "heavy = {'torch', 'transformers', 'bert_score', 'radgraph', 'f1chexbert'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
