"""`fleet`: run a door: one address before the instances of any number of machines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from app.commands import options
from app.errors import ConfigError
from app.form import file
from app.instance.invocation import Invocation
from app.task.checkout import Script, checkout


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    about = "the routes: a table of TOML for each (default: those that the door's task has)"
    add("--config", metavar="ROUTES.toml", help=about)
    add("--host", metavar="H", help="address to listen on")
    add("--port", metavar="P", help="port to listen on (default: 8080)")
    add("--name", metavar="N", default="", help="name of the door's task")
    add("--project", metavar="P", default="", help="project of the door and of its instances")
    add("--tls-cert", metavar="F", default="", help="certificate and its chain, PEM: serve HTTPS")
    add("--tls-key", metavar="F", default="", help="key of the certificate, PEM")
    add(
        "--set",
        metavar="General/name=value",
        action="append",
        default=[],
        help="set a field of the door: wait_timeout, drain_timeout, body_limit, debug …",
    )
    options.add_repository(parser)


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise ConfigError("--tls-cert and --tls-key: give both, or none")
    overrides = dict(file.assignment(text) for text in arguments.set)
    for key, value in (
        ("General/host", arguments.host),
        ("General/port", arguments.port),
        ("General/project", arguments.project),
    ):
        if value:
            overrides[key] = value
    from app.fleet.door import Door, Wish  # the help and a wrong option need none of it

    wish = Wish(
        routes=options.text_of(arguments.config) if arguments.config else "",
        script=_script(arguments.repo),
        name=arguments.name,
        certificate=arguments.tls_cert,
        certificate_key=arguments.tls_key,
    )
    return await Door(Invocation({}, overrides), wish, environment).run()


def _script(repository: str) -> Script | None:
    """What agents run for a route with a form; None where that is not known."""
    if repository:
        return Script(options.public(repository), "main", "")
    try:
        return checkout(options.CHECKOUT)[0]
    except ConfigError:
        return None
