"""Run timm's own VisionTransformer in a process of its own: ``timm_vit.py job.pt answer.pt``.

timm imports torchvision for data sets and convolutional networks, and torchvision cannot be
installed beside the CPU build of torch. Here every name of torchvision is a class that nothing can
be made of: if the ViT used one it would raise, so what is computed is timm's alone.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class AbsentType(type):
    """Classes whose attributes are such classes too."""

    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return absent(name)

    def __call__(cls, *args: object, **kwargs: object) -> object:
        raise RuntimeError(f"torchvision's {cls.__name__} was used")


def absent(name: str) -> type:
    return AbsentType(name, (), {})


class AbsentModule(ModuleType):
    __path__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return absent(name)


class AbsentTorchvision(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.split(".")[0] != "torchvision":
            return None
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def main(job_file: str, answer_file: str) -> None:
    """Answer with the tokens of timm's own weights and of the job's."""
    sys.meta_path.insert(0, AbsentTorchvision())
    import torch
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(1)
    job = torch.load(job_file, weights_only=True)
    model = VisionTransformer(num_classes=0, **job["sizes"]).eval()
    for parameter in model.parameters():  # far from their start, or a wrong norm would not show
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        own_tokens = model.forward_features(job["images"])
        model.load_state_dict(job["weights"], strict=True)
        tokens = model.forward_features(job["images"])
    with torch.device("meta"):
        published = VisionTransformer(
            img_size=384, patch_size=14, embed_dim=1024, depth=24, num_heads=16, num_classes=0
        )
    shapes = {name: list(tensor.shape) for name, tensor in published.state_dict().items()}
    answer = {"own": own, "own_tokens": own_tokens, "tokens": tokens, "published": shapes}
    torch.save(answer, answer_file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
