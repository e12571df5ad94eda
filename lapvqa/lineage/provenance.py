"""How a model was made, as in-toto and SLSA say it: a statement to be signed.

slsa.dev/spec/v1.0/provenance.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lapvqa.lineage import signing
from lapvqa.lineage.ancestry import Ancestry, Told

_BUILD_TYPE = "urn:lapvqa:pipeline:v1"
_BUILDER = "urn:lapvqa:project"


def provenance(ancestry: Ancestry, model: Told) -> dict[str, Any]:
    """Return the statement of a run that made a model: its outputs, and what they were made of."""
    scope = ancestry.upstream(model)
    predicate = {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {told.run.stage: told.run.params for told in scope},
            "internalParameters": model.run.environment,
            "resolvedDependencies": [
                {"name": path, "digest": {"md5": md5.removesuffix(".dir")}}
                for told in scope
                for path, md5 in sorted(told.run.deps.items())
            ]
            + _commit(model),
        },
        "runDetails": {
            "builder": {"id": _BUILDER},
            "metadata": {
                "invocationId": model.id,
                "startedOn": moment(model.run.started),
                "finishedOn": moment(model.run.started + model.run.seconds),
            },
        },
    }
    digests = {
        path: facts["sha256"] for path, facts in model.run.files.items() if "sha256" in facts
    }
    return signing.statement(digests, signing.PROVENANCE, predicate)


def moment(seconds: float) -> str:
    """Return a time in seconds since the epoch as RFC 3339, to the millisecond."""
    found = datetime.fromtimestamp(seconds, UTC)
    return f"{found:%Y-%m-%dT%H:%M:%S}.{found.microsecond // 1000:03d}Z"


def _commit(model: Told) -> list[dict[str, Any]]:
    if not model.run.commit:
        return []
    return [{"name": "code", "digest": {"gitCommit": model.run.commit}}]
