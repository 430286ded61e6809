"""`serve`: run one instance until it ends."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from app.commands import options
from app.instance.life import Instance
from app.machine import host

DESCRIPTION = "Serve GGUF models with llama-server, as a ClearML task or without ClearML."
add_options = options.add_fields


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    wanted = options.invocation(arguments)
    host.close_descriptors_to_children()
    host.raise_descriptor_limit()
    return await Instance(wanted, environment).run()
