"""A small Hugging Face hub: what huggingface_hub asks for, over HTTP on this machine."""

from tests.hub.server import Hub
from tests.hub.storage import Storage

__all__ = ["Hub", "Storage"]
