"""Write docker/.env with a random secret for each service, unless it is there; print no secret.

What an earlier version did not need is added; what is there stays.
"""

import os
import secrets
from pathlib import Path

NAMES = (
    "POSTGRES_PASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD", "PREFECT_PASSWORD",
    "S3_ACCESS_KEY", "S3_SECRET_KEY", "ORTHANC_PASSWORD",
)  # fmt: skip


def main(path: Path) -> None:
    """Bring the file up to date; only its owner can read it."""
    lines = path.read_text().splitlines() if path.exists() else []
    present = {line.partition("=")[0] for line in lines}
    lines += [f"{name}={secrets.token_hex(24)}" for name in NAMES if name not in present]
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write("\n".join(lines) + "\n")
    path.chmod(0o600)


if __name__ == "__main__":
    main(Path(__file__).with_name(".env"))
