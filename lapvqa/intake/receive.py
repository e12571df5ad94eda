"""C-STORE: other machines send studies here. A file is acknowledged when it is on disk, not before.

The called AE title says which source a study is of; whoever is not named for it in local.yaml is
refused. What a file holds is kept as it was sent, in the transfer syntax in which it came; before
it stands the file meta that PS3.10 asks for.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.uid import UID

from lapvqa import extras
from lapvqa.dicom.pixels import DECODERS, NATIVE
from lapvqa.errors import ConfigError, DicomError, StorageFullError
from lapvqa.intake import tls
from lapvqa.intake.filing import Filing, Say
from lapvqa.intake.inbox import Inbox
from lapvqa.intake.instance import read_names
from lapvqa.machine import Receiver, Sender

SUCCESS, OUT_OF_RESOURCES, NOT_WHAT_IT_SAYS, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of C-STORE (PS3.4 B.2.3)."""
_BY_USER = (1, 1)  # rejected for good, by the service's user: PS3.8 9.3.4
_CALLING_UNKNOWN, _CALLED_UNKNOWN = 3, 7
_STORED = (
    "Computed Radiography Image Storage", "Digital X-Ray Image Storage", "Secondary Capture Image",
    "X-Ray Radiofluoroscopic Image Storage", "X-Ray Angiographic Image Storage", "SR Storage",
    "Key Object Selection Document Storage", "Presentation State Storage",
    "Encapsulated PDF Storage",
)  # fmt: skip
"""Radiographs, and what goes with them: of SOP classes' names a part."""
_POLL = 1.0


class Server:
    """The AE that listens; it runs in threads of its own from ``start`` to ``stop``."""

    def __init__(self, inbox: Inbox, settings: Receiver, say: Say, *, root: Path) -> None:
        if not settings.sources:
            raise ConfigError(
                "expected who may send, found nobody in local.yaml",
                hint="intake: {receive: {sources: {CALLED_AE: {callers: [CALLING_AE], "
                "addresses: [10.1.2.0/24]}}}}",
            )
        self.inbox, self.settings, self.say = inbox, settings, say
        self._context = tls.context(settings.tls, root) if settings.tls else None
        self.counts = {"received": 0, "refused": 0}
        self._counting = threading.Lock()
        self._server: Any = None

    def start(self) -> int:
        """Begin to listen; return the port. Raises ConfigError if it is taken."""
        package = extras.optional("pynetdicom", needed_for="`lapvqa receive`")
        _silence(package)
        ae = package.AE(ae_title="LAPVQA")
        for sop_class in _storage_classes(package):
            ae.add_supported_context(sop_class, _syntaxes())
        ae.add_supported_context(package.sop_class.Verification)
        ae.maximum_associations = self.settings.associations
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = self.settings.timeout_seconds
        events = package.evt
        handlers = [
            (events.EVT_CONN_OPEN, self._connected),
            (events.EVT_REQUESTED, self._requested),
            (events.EVT_C_STORE, self._stored),
        ]
        address = (self.settings.host, self.settings.port)
        try:
            self._server = ae.start_server(
                address, block=False, evt_handlers=handlers, ssl_context=self._context
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {address[0]} port {address[1]} ({error.strerror})",
                hint="another program has the port, or the address is not this machine's: "
                "intake.receive.host and port in local.yaml",
            ) from None
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop listening, and let go of those who are sending: they keep what has no answer."""
        if self._server is None:
            return
        self._server.shutdown()
        deadline = time.monotonic() + self.settings.timeout_seconds
        for association in self._server.active_associations:
            association.abort()
            association.join(max(0.0, deadline - time.monotonic()))

    def _connected(self, event: Any) -> None:
        """Hang up on an address that nobody sends from: it shall not hold a place for others."""
        connection = event.assoc.dul.socket.socket
        # Else a sender that stops in the middle of a message would hold a thread for ever.
        connection.settimeout(self.settings.timeout_seconds)
        address = event.assoc.requestor.address
        if not self._may_be_from(address):
            self._tell_refusal(address, "address not allowed")
            connection.shutdown(socket.SHUT_RDWR)
        elif why := tls.refusal(connection):
            self._tell_refusal(address, why)
            connection.shutdown(socket.SHUT_RDWR)

    def _requested(self, event: Any) -> None:
        """Refuse whoever is not named for the AE title that is called."""
        association = event.assoc
        request = association.requestor.primitive
        address = association.requestor.address
        sender = self.settings.sources.get(request.called_ae_title)
        if not self._may_be_from(address):  # hung up on, and told, already
            association.is_rejected = True
            association.kill()
        elif sender is None:
            called = _shown(request.called_ae_title)
            what = f"an unknown AE title was called: {called}"
            self._refuse(association, _CALLED_UNKNOWN, what, address)
        elif not _is_from(address, sender):
            self._refuse(association, _CALLING_UNKNOWN, "address not allowed", address)
        elif request.calling_ae_title not in sender.callers:
            calling = _shown(request.calling_ae_title)
            what = f"unknown calling AE title: {calling}"
            self._refuse(association, _CALLING_UNKNOWN, what, address)

    def _refuse(self, association: Any, why: int, what: str, address: str) -> None:
        self._tell_refusal(address, what)
        association.acse.send_reject(*_BY_USER, why)
        association.is_rejected = True
        association.kill()

    def _may_be_from(self, address: str) -> bool:
        return any(_is_from(address, sender) for sender in self.settings.sources.values())

    def _tell_refusal(self, address: str, what: str) -> None:
        self._count("refused")
        self.say(f"refused a sender at {address}: {what}")

    def _stored(self, event: Any) -> int:
        """Keep one instance; return the status of C-STORE."""
        source = event.assoc.requestor.primitive.called_ae_title
        try:
            syntax = event.context.transfer_syntax
            names = read_names(event.encoded_dataset(include_meta=False), syntax)
            if names.instance_uid != str(event.request.AffectedSOPInstanceUID):
                return self._failed(source, NOT_WHAT_IT_SAYS, "its UID is not the one announced")
            self.inbox.deposit(source, names, event.encoded_dataset())
        except DicomError as error:
            return self._failed(source, NOT_UNDERSTOOD, error.message)
        except StorageFullError as error:
            return self._failed(source, OUT_OF_RESOURCES, error.message)
        except Exception as error:  # noqa: BLE001 - a text may quote the file; the sender keeps it
            return self._failed(source, OUT_OF_RESOURCES, type(error).__name__)
        self._count("received")
        return SUCCESS

    def _failed(self, source: str, status: int, why: str) -> int:
        self._count("refused")
        self.say(f"{source}: a file was not taken, status {status:04X}: {why}")
        return status

    def _count(self, what: str) -> None:
        with self._counting:
            self.counts[what] += 1


def serve(
    server: Server, filing: Filing, stopped: Callable[[], bool], *, listening: Callable[[int], None]
) -> None:
    """Receive and file until ``stopped``; what waits then is filed by the next start."""
    filing.recover()
    with _running(server) as port:
        listening(port)
        while not stopped():
            with filing.going_on():
                filing.settle()
            time.sleep(_POLL)


@contextmanager
def _running(server: Server) -> Iterator[int]:
    port = server.start()
    try:
        yield port
    finally:
        server.stop()


def _is_from(address: str, sender: Sender) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in ipaddress.ip_network(one) for one in sender.addresses)


def _shown(title: str) -> str:
    """Return an AE title as it may stand in a line: others choose it."""
    return title if re.fullmatch(r"[A-Za-z0-9_-]{1,16}", title) else "one with other signs"


def _storage_classes(package: Any) -> list[UID]:
    every = [context.abstract_syntax for context in package.AllStoragePresentationContexts]
    return [uid for uid in every if any(part in uid.name for part in _STORED)]


def _syntaxes() -> list[UID]:
    """Return every transfer syntax that ingest reads: nothing is decoded on the way."""
    return [*sorted(NATIVE), *DECODERS]


def _silence(package: Any) -> None:
    """Keep the network's and the reader's log lines back: they quote UIDs and names."""
    package._config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
