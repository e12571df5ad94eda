"""The table of runs as MLflow's page shows it first: a column per primary metric.

MLflow keeps a view that is shared as a tag of the experiment, and a link names it. A version that
does not know the tag shows its own columns.
"""

from __future__ import annotations

import json

from lapvqa.evaluation import task_table
from tasks.mlflow_records.connection import Store

_NAME = "lapvqa"
_TAG = f"mlflow.sharedViewState.{_NAME}"
_PARAMS = ("pretrain.objective", "pretrain.epochs", "pretrain.lr", "pretrain.batch_size")


def link(store: Store) -> str:
    """Keep the view in the store; return where it is, to be set behind the page's address."""
    metrics = [f"{task.name}.{task.primary}" for task in task_table.find_all()]
    columns = [
        "attributes.`Duration`",
        *(f"metrics.`{name}`" for name in metrics),
        *(f"params.`{name}`" for name in _PARAMS),
    ]
    store.client.set_experiment_tag(
        store.experiment, _TAG, json.dumps({"selectedColumns": columns})
    )
    return (
        f"/#/experiments/{store.experiment}/runs?workflowType=machine_learning"
        f"&viewStateShareKey={_NAME}"
    )
