"""`doctor`: look at this machine and its surroundings, and say what is wrong with them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial

from app.commands import options
from app.console import say
from app.doctor import binary, finding, gpus, machine
from app.doctor.binary import LlamaServer
from app.doctor.clearml import ClearML
from app.doctor.examination import Check, examine
from app.doctor.finding import Verdict
from app.doctor.hub import WITHOUT, hub
from app.engine.environment import child_environment
from app.errors import ConfigError
from app.gateway.admission import listening_host
from app.instance.callers import own_keys
from app.instance.invocation import Invocation
from app.instance.keys import is_named
from app.models.store import cache_folder
from app.task.survey import Survey

UNANSWERED = "check CLEARML_API_HOST, the network and proxies; or start with --no-clearml"
SLOW = 90.0  # seconds: with CUDA, llama-server initialises every GPU before it answers
PARKING = 120.0
DISK_HANGS = "the file system does not answer: name another folder"


def add_options(parser: argparse.ArgumentParser) -> None:
    options.add_fields(parser)
    options.add_no_clearml(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


async def run(arguments: argparse.Namespace, environment: Mapping[str, str]) -> int:
    report = await examine(await checks(options.recorded(arguments), environment))
    say(finding.as_json(report) if arguments.json else "\n".join(finding.lines(report)))
    return ConfigError.exit_status if finding.has_problem(report) else 0


async def checks(wanted: Invocation, environment: Mapping[str, str]) -> Sequence[Check]:
    """Raises ConfigError where the form cannot be read."""
    general = options.settings(wanted).general
    folder = cache_folder(wanted.cache_dir, environment)
    child = child_environment(environment, str(folder), api_key="")
    server = LlamaServer(general.llama_server, environment, child)
    survey = Survey(offline=wanted.offline, environment=environment)
    clearml = ClearML(
        survey, wanted=wanted.recorded, queue=general.queue, route=general.gateway_route
    )
    has_key = any(own_keys(environment)) or is_named(environment)
    host = await listening_host(general.host, under_agent=False, has_key=has_key)
    return (
        Check("GPU", gpus.present, hanging=gpus.HANGS),
        Check("driver", gpus.driver, hanging=gpus.HANGS),
        Check("parking", partial(gpus.parking, child), PARKING, Verdict.WARNING),
        Check("llama-server", server.version, SLOW),
        Check("its GPUs", server.gpus, SLOW, hanging=gpus.HANGS),
        Check("its flags", server.flags, SLOW),
        Check("its end", binary.ends_with_us),
        Check("ClearML", clearml.server, hanging=UNANSWERED),
        Check("App Gateway", clearml.gateway, hanging=UNANSWERED),
        Check("endpoints", clearml.endpoints, failure=Verdict.WARNING),
        Check("queue", clearml.queue, failure=Verdict.WARNING),
        Check("clock", clearml.clock, failure=Verdict.WARNING),
        Check("hub", hub, failure=Verdict.WARNING, hanging=WITHOUT),
        Check("cache", partial(machine.cache, folder), hanging=DISK_HANGS),
        Check("temporary", machine.temporary, hanging=DISK_HANGS),
        Check("/dev/shm", machine.shared_memory, failure=Verdict.WARNING),
        Check("memory", machine.memory),
        Check("limits", machine.granted),
        Check("port", partial(machine.port, host, general.port)),
    )
