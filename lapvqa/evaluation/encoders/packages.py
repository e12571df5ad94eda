"""Packages that only some encoders need: imported when asked for, with an error that says how.

`make setup-encoders` installs timm without its needs, which would bring torchvision and another
torch. timm imports torchvision for data sets, transforms and one frozen norm of convolutional
networks; its models compute without. Where torchvision is not installed, every name of it is, while
timm is imported, a class that nothing can be made of: what timm computes is timm's, or it raises.
Afterwards torchvision is absent again for everybody.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from lapvqa import extras

_TORCHVISION = "torchvision"


def optional(name: str, *, needed_for: str) -> ModuleType:
    """Import ``transformers`` or ``timm``; MissingPackageError says how to install it."""
    if name != "timm":
        return extras.optional(name, needed_for=needed_for)  # type: ignore[no-any-return]
    with absent_torchvision():
        return extras.optional(name, needed_for=needed_for)  # type: ignore[no-any-return]


class _AbsentType(type):
    """Type of the placeholders, whose attributes are placeholders too."""

    def __getattr__(cls, name: str) -> type:
        return _placeholder(name)

    def __call__(cls, *args: object, **kwargs: object) -> object:
        raise ImportError(f"this model uses torchvision's {cls.__name__}, which is not installed")


def _placeholder(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _AbsentType(name, (), {})


class _AbsentModule(ModuleType):
    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> type:
        return _placeholder(name)


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] != _TORCHVISION:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: its names are made when they are asked for."""


@contextmanager
def absent_torchvision() -> Iterator[None]:
    """Let imports of torchvision succeed where it is not installed; see the module."""
    if importlib.util.find_spec(_TORCHVISION) is not None:
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == _TORCHVISION]:
            del sys.modules[name]
