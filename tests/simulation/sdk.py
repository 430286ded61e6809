"""The modules of the ClearML SDK, as far as app/task imports them, for one world."""

import contextlib
import sys
import types
from types import SimpleNamespace

from tests.simulation.clearml import Http, LoginError, SdkTask, Session


def modules(world):
    """The SDK's, by name."""
    server = world.clearml
    session = type("Session", (Session,), {})  # app.task.api changes it
    login = LoginError
    shared = session(server)

    def init(**given):
        return SdkTask(world, shared)

    task = SimpleNamespace(
        init=init,
        force_requirements_env_freeze=lambda **given: None,
        TaskTypes=SimpleNamespace(inference="inference"),
        _get_default_session=lambda: shared,
    )
    logger = type("Logger", (), {"report_text": lambda self, msg: None})
    variable = SimpleNamespace(get_pair=lambda default: ("CLEARML", "x"), key="CLEARML")
    nothing = SimpleNamespace(get=lambda default=None: default, key="NONE")
    found = {
        "clearml": {"Task": task, "Logger": logger, "Model": None, "StorageManager": None},
        "clearml.storage": {"callbacks": SimpleNamespace()},
        "clearml.config": {"config_obj": {}, "ConfigWrapper": nothing},
        "clearml.backend_api": {"Session": session},
        "clearml.backend_api.session": {},
        "clearml.backend_api.session.session": {"LoginError": login},
        "clearml.backend_api.session.defs": {
            "ENV_HOST": variable,
            "ENV_ACCESS_KEY": variable,
            "ENV_SECRET_KEY": variable,
            "ENV_AUTH_TOKEN": nothing,
            "ENV_API_DEFAULT_REQ_METHOD": nothing,
        },
        "clearml.backend_api.session.token_manager": {
            "TokenManager": SimpleNamespace(_get_token_exp=lambda text: 1)
        },
        "clearml.backend_api.utils": {
            "get_http_session_with_retry": lambda **given: Http(server),
        },
        "clearml.backend_interface": {},
        "clearml.backend_interface.task": {},
        "clearml.backend_interface.task.development": {},
        "clearml.backend_interface.task.development.worker": {"DevWorker": SimpleNamespace()},
        "clearml.backend_interface.metrics": {},
        "clearml.backend_interface.metrics.events": {"ScalarEvent": SimpleNamespace},
    }
    return {name: module(name, content) for name, content in found.items()}


def module(name, content):
    made = types.ModuleType(name)
    made.__path__ = []
    made.__dict__.update(content)
    return made


@contextlib.contextmanager
def instead(world):
    """The SDK is ours; the real one, if it was imported, is as it was afterwards."""
    real = {name: m for name, m in sys.modules.items() if name.partition(".")[0] == "clearml"}
    for name in real:
        del sys.modules[name]
    sys.modules.update(modules(world))
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "clearml"]:
            del sys.modules[name]
        sys.modules.update(real)
