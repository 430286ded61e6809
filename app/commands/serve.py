"""`serve`: run one instance until it ends."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from app.commands import options, paths


def add_options(found: argparse.ArgumentParser) -> None:
    options.add_fields(found)
    options.add_no_clearml(found)


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    wanted = paths.whole(options.recorded(arguments))
    from app.instance.life import Instance  # the help and a wrong option need none of it
    from app.machine import host

    host.close_descriptors_to_children()
    return await Instance(wanted, environment).run()
