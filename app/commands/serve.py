"""`serve`: run one instance until it ends."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace

from app.commands import options, paths


def add_options(found: argparse.ArgumentParser) -> None:
    options.add_fields(found)
    about = "serve without ClearML: no task, and no offline record of one"
    found.add_argument("--no-clearml", action="store_true", help=about)


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    asked = replace(options.invocation(arguments), recorded=not arguments.no_clearml)
    wanted = paths.whole(asked)
    from app.instance.life import Instance  # the help and a wrong option need none of it
    from app.machine import host

    host.close_descriptors_to_children()
    host.raise_descriptor_limit()
    return await Instance(wanted, environment).run()
