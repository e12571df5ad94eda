"""Every name of MLflow that its documentation does not promise, and nothing else of it.

An upgrade may move any of them: tests/house/test_private_names.py says which.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Dataset
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

_MONITORS = "mlflow.system_metrics.metrics"
NAMES = {
    f"{_MONITORS}.cpu_monitor:CPUMonitor": (),
    f"{_MONITORS}.disk_monitor:DiskMonitor": (),
    f"{_MONITORS}.network_monitor:NetworkMonitor": (),
    f"{_MONITORS}.gpu_monitor:GPUMonitor": (),
    f"{_MONITORS}.base_metrics_monitor:BaseMetricsMonitor.collect_metrics": ("self",),
    f"{_MONITORS}.base_metrics_monitor:BaseMetricsMonitor.aggregate_metrics": ("self",),
    f"{_MONITORS}.base_metrics_monitor:BaseMetricsMonitor.clear_metrics": ("self",),
    "mlflow.data.code_dataset_source:CodeDatasetSource": ("tags",),
    "mlflow.data.meta_dataset:MetaDataset": ("source", "name", "digest"),
}
"""Where each lies -> the parameters that we pass."""


def load_monitors() -> list[BaseMetricsMonitor]:
    """Return what measures the load: of processor, disk, network, and of a GPU if there is one."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # no NVIDIA driver, or no library that asks it
        monitors.append(GPUMonitor())
    return monitors


def dataset(path: str, md5: str) -> Dataset:
    """Return a file or folder that a run has read, its digest being DVC's."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import Dataset

    source = CodeDatasetSource(tags={"dvc.path": path, "dvc.md5": md5})
    made = MetaDataset(source=source, name=path, digest=md5)  # type: ignore[abstract]
    told: Any = Dataset.from_dictionary(made.to_dict())
    return told
