"""TLS of those who send: certificates by local.yaml, the handshake where it holds nobody up."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from lapvqa.errors import ConfigError
from lapvqa.machine import Tls


class _Context(ssl.SSLContext):
    """Leaves the handshake to ``refusal``, in the thread of its association.

    pynetdicom wraps a connection in the one thread that accepts: whoever connected and said nothing
    would keep all others out.
    """

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **{**options, "do_handshake_on_connect": False})


def refusal(connection: socket.socket) -> str:
    """Shake hands with a sender, in this thread; return why not, "" if done or not asked for."""
    if not isinstance(connection, ssl.SSLSocket):
        return ""
    try:
        connection.do_handshake()
    except OSError as error:  # ssl.SSLError too; its reason names no certificate
        return f"no TLS, or no certificate: {getattr(error, 'reason', None) or 'it fell silent'}"
    return ""


def context(settings: Tls, root: Path) -> ssl.SSLContext:
    """Return the server's side of TLS 1.2 or newer; ConfigError for files that are no such thing.

    With ``authorities`` a sender has to show a certificate that one of them has signed.
    """
    made = _Context(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = (
        root / Path(one).expanduser() for one in (settings.certificate, settings.key)
    )
    try:
        # The callback: a key with a password must not ask for it on the terminal of a service.
        made.load_cert_chain(certificate, key, password=lambda: "")
        if settings.authorities is not None:
            made.load_verify_locations(root / Path(settings.authorities).expanduser())
            made.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError too
        raise ConfigError(
            f"intake.receive.tls: expected a certificate and its key, found {error.strerror}",
            hint="PEM files, the key without a password and readable by this user: certificate, "
            "key and authorities under intake.receive.tls in local.yaml",
        ) from None
    return made
