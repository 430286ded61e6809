"""A stand-in for the ClearML API server: in memory, one process, what the SDK asks for."""

from tests.clearml_api.server import ApiServer

__all__ = ["ApiServer"]
