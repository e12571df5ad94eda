"""FLOPs of a model's parts, forward.

Counted for matrix products alone, two for each multiplication and addition, as computed: one
channel (the three kernels are summed first), cross-attention to pooled tokens, and attention with
the places that the causal mask hides.
"""

from __future__ import annotations

from lapvqa.params import ModelParams, PretrainParams


def patch_flops(sizes: ModelParams) -> float:
    """Return the FLOPs of an image's patch embedding, forward."""
    return 2 * sizes.patch_size**2 * sizes.width * (sizes.image_size // sizes.patch_size) ** 2


def encoder_flops(params: PretrainParams) -> float:
    """Return the FLOPs of an image in blocks and pooling, forward."""
    sizes = params.model
    grid, pooled = sizes.image_size // sizes.patch_size, sizes.pooled_grid
    patches = kept_patches(params)
    flops = sizes.depth * block_flops(patches + 1, sizes.width)
    if patches == grid**2 and pooled != grid:
        flops += 2 * sizes.width * (pooled * grid**2 + pooled**2 * grid)
    return flops


def kept_patches(params: PretrainParams) -> int:
    """Return how many patches of an image are encoded."""
    patches = (params.model.image_size // params.model.patch_size) ** 2
    return max(1, round(params.keep_patches * patches))


def visual_tokens(params: PretrainParams) -> int:
    """Return how many tokens of an image the encoder hands on in training."""
    return params.model.pooled_grid**2 if params.keep_patches == 1 else kept_patches(params)


def block_flops(tokens: float, width: int) -> float:
    """Return the FLOPs of a transformer block: qkv, attention, projection, MLP of four widths."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width
