"""Import timm where torchvision is not installed.

timm imports torchvision for data sets, transforms and one frozen norm of convolutional networks;
its models compute without. While timm is imported, every name of torchvision is a class that
nothing can be made of: what timm computes is timm's alone, or it raises. Afterwards torchvision is
absent again for everybody.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_NAME = "torchvision"


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
        if fullname.split(".")[0] != _NAME:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: its names are made when they are asked for."""


@contextmanager
def absent_torchvision() -> Iterator[None]:
    """Let imports of torchvision succeed where it is not installed; see the module."""
    if importlib.util.find_spec(_NAME) is not None:
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [one for one in sys.modules if one.split(".")[0] == _NAME]:
            del sys.modules[name]
