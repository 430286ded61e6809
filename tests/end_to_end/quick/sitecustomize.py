"""Python imports it at its start where this folder is in PYTHONPATH: clearml-agent reads its
configuration in a tenth of the time.

Each of its processes parses its own defaults, which are comments for the most part, and its parser
looks for the end of each letter by letter: half of what a run of the agent costs. Empty comments
are left (app/task/configuration.py does the same for the SDK). Nothing else of it is changed.
"""

import importlib.util
import re
import sys

PARSER = "clearml_agent.external.pyhocon.config_parser"
COMMENT = re.compile(r"^([ \t]*)(?:#|//)[^\r\n]*", re.MULTILINE)


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
            parse = module.ConfigParser.parse

            def quickly(text, *given, **named):
                short = text if '"""' in text else COMMENT.sub(r"\1#", text)
                return parse(short, *given, **named)

            module.ConfigParser.parse = staticmethod(quickly)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
