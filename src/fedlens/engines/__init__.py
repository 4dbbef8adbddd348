"""Engines carry messages; they know neither weights nor images."""

from fedlens.engines.engine import Engine, Reply
from fedlens.engines.local import LocalEngine

__all__ = ["Engine", "LocalEngine", "Reply"]
