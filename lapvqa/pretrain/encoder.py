"""The encoder under the path that cards of exported models name; it lives in networks."""

from lapvqa.networks.encoder import VisionEncoder

__all__ = ["VisionEncoder"]
