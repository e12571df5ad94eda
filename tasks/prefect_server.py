"""The embedded Prefect server's process: ``python -m tasks.prefect_server PARENT SOCKET SERVICES``.

It listens on a socket that its parent bound (so no other process can take the port meanwhile)
and dies with its parent. SERVICES: ``run`` for one flow run, ``schedule`` with scheduler and UI.
"""

from __future__ import annotations

import socket
import sys

from lapvqa.runtime import die_with_parent


def main(arguments: list[str]) -> int:
    """Serve until killed."""
    parent, descriptor, services = int(arguments[0]), int(arguments[1]), arguments[2]
    die_with_parent(parent)
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=services == "run", final=True)
    config = uvicorn.Config(app, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
