"""``lapvqa try``: a page on this machine, for a film and what the model makes of it."""

from __future__ import annotations

import socket
import webbrowser
from contextlib import closing

from flows.commands import chosen_model, terminal
from lapvqa.job import open_job
from lapvqa.params import load_params
from lapvqa.project import Project
from lapvqa.recorder import Recorder


def execute(project: Project, *, port: int, browser: bool) -> int:
    """Serve the page until interrupted; port 0: any that is free."""
    import uvicorn

    from flows.try_page.app import make_app
    from flows.try_page.looking import Looker

    console = terminal.console()
    params = load_params(project.params)
    chosen_model.find_finished(None, project)
    console.print("opening the model; features of the archive's films are computed once")
    with closing(Recorder(project.record("try"), stage="try", quiet=True)) as recorder:
        job = open_job(project, recorder)
        looker = Looker(params, job)
        for what, why in looker.absent.items():
            console.print(f"not here: {what}; {why}", markup=False, soft_wrap=True)
        with closing(socket.socket()) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind(("127.0.0.1", port))
            place.listen()  # from here on the address answers
            address = f"http://127.0.0.1:{place.getsockname()[1]}/"
            console.print(f"{address}  until Ctrl-C", markup=False)
            if browser:
                webbrowser.open(address)
            config = uvicorn.Config(make_app(looker), log_level="warning", access_log=False)
            try:
                uvicorn.Server(config).run(sockets=[place])
            except KeyboardInterrupt:
                return 0
    return 0
