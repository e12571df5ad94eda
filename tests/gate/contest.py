"""A project whose models have predictions of questions, some of patients who are sealed.

Real files and a real ledger; only the answers are made up: a model is right with a probability of
its own, and two models share most of what they get right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from lapvqa import storage
from lapvqa.evaluation import contract, sealed
from lapvqa.evaluation.results import Contamination
from lapvqa.gate.contenders import UNTRAINED, Contender
from lapvqa.lineage import ledger
from lapvqa.lineage.ledger import RUN, TRAINED_ON
from lapvqa.lineage.row_numbers import PATIENT, RowNumbers, packed
from lapvqa.lineage.runs import Run
from lapvqa.params import BootstrapParams, GateParams, Params
from lapvqa.project import Project
from lapvqa.schemas import ANSWER_PREDICTIONS, IMAGES
from lapvqa.vqa.task import TASK

GATE = GateParams(
    primary=["vqa.exact_match"], margins={"vqa.token_f1": 0.1}, slices=["view", "source", "sex"],
    slice_margin=0.2, slice_patients=20, patients=30, worthwhile=0.02, sealed_share=0.5,
)  # fmt: skip
COMMON = BootstrapParams(bootstrap_draws=200)
_DEFAULTS = {"string": "", "int32": 0, "int16": 0, "double": 0.0}


@dataclass
class Contest:
    """``skill``: system -> share of questions answered well; ``hard``: view -> less of it."""

    project: Project
    params: Params
    patients: list[str] = field(default_factory=list)

    def arrive(self, number: int) -> None:
        """Let test patients arrive, one image each, AP and PA in turn."""
        start = len(self.patients)
        self.patients += [f"p{k:05d}" for k in range(start, start + number)]
        rows = [
            {one.name: _DEFAULTS[str(one.type)] for one in IMAGES}
            | {"image_key": f"i{key}", "study_key": f"s{key}", "patient_key": key,
               "split": "test", "view": ("AP", "PA")[k % 2]}
            for k, key in enumerate(self.patients)
        ]  # fmt: skip
        storage.write_table(self.project.images, pa.Table.from_pylist(rows, schema=IMAGES), IMAGES)

    def seal(self) -> None:
        """Seal half of those who arrive from now on."""
        sealed.write_rule(self.project, share=0.5, round_name="r1", opened="", shown=self.patients)

    def predict(
        self, folder: Path, skills: dict[str, float], *, seed: int = 0, drop: str = "",
        stamp: Contamination | Literal[False] | None = False, digests: dict[str, str] | None = None,
        worse_in: str = "",
    ) -> None:  # fmt: skip
        """Publish answers of systems as an evaluation does."""
        generator = np.random.default_rng(seed)
        luck = generator.uniform(size=len(self.patients))
        rows = []
        for system, skill in skills.items():
            for k, key in enumerate(self.patients):
                view = ("AP", "PA")[k % 2]
                share = skill - 0.9 * (view == worse_in and system != UNTRAINED)
                if key != drop:
                    rows.append({
                        "sample": f"q{key}", "patient": key, "system": system,
                        "image": f"i{key}", "reference_image": None, "reversed": None,
                        "type": "presence", "question": "any?", "reference": "yes",
                        "hypothesis": "yes" if luck[k] < share else "no",
                    })  # fmt: skip
        protocol = {f"encoder_sha256_{one}": f"weights of {one}" for one in skills}
        protocol |= {f"encoder_sha256_{one}": as_ for one, as_ in (digests or {}).items()}
        contract.publish(
            TASK, pa.Table.from_pylist(rows, schema=ANSWER_PREDICTIONS), protocol=protocol,
            folder=folder / "vqa", common=COMMON, contaminated=stamp,
            sealed=sealed.sealed_patients(self.project),
        )  # fmt: skip

    def pipeline(self, **skills: float) -> None:
        """Publish the pipeline's results: trained and untrained."""
        self.predict(self.project.root / "results", skills)

    def other(self, name: str, skill: float, **others: object) -> None:
        """Publish what `lapvqa evaluate --encoder` makes of a registered model."""
        self.predict(self.project.evaluations_dir(name), {name: skill}, **others)  # type: ignore[arg-type]

    def trained(self) -> Contender:
        """The pipeline's own model."""
        results = self.project.root / "results"
        return Contender("c" * 64, "weights of trained", results, "trained")

    def untrained(self) -> Contender:
        results = self.project.root / "results"
        return Contender("", "weights of untrained", results, UNTRAINED)

    def model(self, name: str) -> Contender:
        folder = self.project.evaluations_dir(name)
        return Contender(name[0] * 64, f"weights of {name}", folder, name)

    def tell_training(self, contender: Contender, patients: list[str]) -> None:
        """Tell the ledger whom a model was trained on."""
        run = Run("pretrain", 0.0, 1.0, files={"w": {"sha256": contender.sha256}}, outs={"w": "m"})
        entry = ledger.append(self.project, RUN, run.payload())
        rows = packed(RowNumbers(self.project, PATIENT).number(patients))
        roles = {"train": {"patients": rows, "studies": {}}}
        ledger.append(self.project, TRAINED_ON, {"run": entry, "path": "w", "roles": roles})
