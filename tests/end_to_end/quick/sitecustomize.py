"""Python imports it at its start where this folder is in PYTHONPATH: clearml-agent reads its
configuration in a fifth of the time.

Each of its processes parses its own defaults, which are comments for the most part, and its parser
looks for the end of each comment letter by letter: half of what a run of the agent costs. It sees
none, as the app's own SDK does not. Nothing else of the agent is changed.
"""

import importlib.util
import sys
from pathlib import Path

PARSER = "clearml_agent.external.pyhocon.config_parser"
OURS = Path(__file__).parents[3] / "app" / "task" / "configuration.py"


def loaded(path):
    """A module of ours, without our folder in the path of what the agent runs."""
    spec = importlib.util.spec_from_file_location("configuration", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Finder:
    """Finds the agent's parser once, as Python does without it."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != PARSER:
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            parse, short = module.ConfigParser.parse, loaded(OURS).without_comments
            module.ConfigParser.parse = staticmethod(
                lambda text, *given, **named: parse(short(text), *given, **named)
            )

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
