"""`fetch`: bring models into this machine's cache before anybody needs them, and register them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping

from app.commands.launch import launcher
from app.console import escape, say
from app.instance.invocation import PROJECT
from app.models.files import Located, Registered
from app.models.parts import Remote
from app.models.reference import parse, title
from app.models.store import Store
from app.planning.disk import check_disk
from app.task import inputs
from app.task.clearml_task import ClearMLTask
from app.task.launch import Launcher
from app.task.weights import Weights

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", metavar="REF", nargs="+", help="what the form's Model takes")
    add("--cache-dir", metavar="D", help="folder to keep models in")
    add("--offline", action="store_true", help="do not use a ClearML server")
    about = "fetch from http(s) addresses inside this network, too"
    add("--allow-private-urls", action="store_true", help=about)
    add("--register", action="store_true", help="make each a model of the ClearML server")
    about = f"project of the models that are registered (default: {PROJECT})"
    add("--project", metavar="P", default=PROJECT, help=about)


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the first file of each; what is registered, by its ID."""
    named = {text: parse(text, trial=False) for text in arguments.models}
    task = ClearMLTask(offline=arguments.offline, environment=environment)
    await task.attach()
    registry = launcher(task) if arguments.register else None
    weights = Weights(task)
    private = arguments.allow_private_urls
    store = Store(arguments.cache_dir, environment, weights, private_urls=private)
    try:
        project = await registry.project(arguments.project) if registry is not None else ""
        found = {text: await store.locate(reference) for text, reference in named.items()}
        check_disk([each for each in found.values() if isinstance(each, Remote)], store)
        for text, located in found.items():
            name = escape(title(text))
            files = await store.fetch(located, name, lambda _: None)
            say(escape(str(files.first)))
            if registry is not None:
                await _register(registry, located, project, name)
    finally:
        weights.discard()
    return 0


async def _register(registry: Launcher, located: Located, project: str, name: str) -> None:
    for known in inputs.parts(located):
        if isinstance(known, Registered):
            logger.info("it is registered already: %s", known.id, extra={"subject": name})
        else:
            say(await registry.register(known, project))
