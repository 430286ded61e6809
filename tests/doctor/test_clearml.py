"""Against the API stand-in, with the real SDK: in a process of its own, which it changes."""

import json
import subprocess
import sys
import textwrap

import pytest

from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import ROOT, environment_of

CHECKS = "server", "gateway", "endpoints", "queue", "clock"
CODE = textwrap.dedent(
    """
    import asyncio, json, os, sys
    from app.doctor.clearml import ClearML
    from app.doctor.examination import Check, examine
    from app.task.survey import Survey

    async def main(names, given):
        survey = Survey(offline=False, environment=os.environ)
        clearml = ClearML(survey, **{"wanted": True, "queue": "", "route": "", **given})
        checks = [Check(name, getattr(clearml, name), deadline=90.0) for name in names]
        found = await examine(checks)
        print(json.dumps({n: [f.verdict.value, f.seen, f.advice] for n, f in found.items()}))
        sys.stdout.flush()
        os._exit(0)

    asyncio.run(main(*json.loads(sys.argv[1])))
    """
)


@pytest.fixture
def look(tmp_path):
    def looked(api, *, environment=None, **given):
        variables = {**environment_of(tmp_path), **(environment or api.environment)}
        done = subprocess.run(
            [sys.executable, "-c", CODE, json.dumps([CHECKS, given])],
            cwd=ROOT,
            env={**variables, "CLEARML_CONFIG_FILE": str(tmp_path / "none")},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return looked


def test_an_open_source_server(look):
    with ApiServer() as api:
        api.state.queues_create({"name": "gpu"})
        found = look(api, queue="gpu")
        verdict, seen, _ = found["server"]
        assert verdict == "ok" and "lets us in: open source, version 2.3.0 (API 2.34)" in seen
        assert found["gateway"][:2] == [
            "ok",
            "none with open source: callers reach the machine's own address",
        ]
        assert found["endpoints"][0] == "ok"
        assert found["queue"][:2] == ["ok", "queues that we may see: 1, with gpu"]
        assert found["clock"][0] == "ok", found["clock"]
        assert "secret" not in json.dumps(found)
        assert not api.state.tasks and not api.state.containers  # nothing was changed


def test_an_enterprise_server(look):
    routes = {"r": {"name": "mine"}}
    with ApiServer(feature_set="advanced", routes=routes, lacking=("serving",)) as api:
        found = look(api, route="mine", queue="none")
        assert "Enterprise, version 3.26.0" in found["server"][1]
        assert found["gateway"][:2] == ["ok", "it has the static route mine"]
        assert found["endpoints"][0] == "warning" and "no Model Endpoints" in found["endpoints"][1]
        assert found["queue"] == [
            "problem",
            "no queue none; there is: none",
            "correct General/queue",
        ]
        assert look(api, route="other")["gateway"][0] == "problem"


def test_a_route_that_an_open_source_server_cannot_have(look):
    with ApiServer() as api:
        verdict, _, advice = look(api, route="mine")["gateway"]
        assert verdict == "warning" and advice.startswith("empty it")


def test_a_clock_that_is_wrong(look):
    with ApiServer() as api:
        api.ahead = -3600
        verdict, seen, advice = look(api)["clock"]
        assert verdict == "warning" and "s behind this machine" in seen and "NTP" in advice


def test_a_server_that_refuses_us(look):
    with ApiServer() as api:
        api.locked = True
        found = look(api)
        verdict, seen, _ = found.pop("server")
        assert verdict == "problem" and "refuses the credentials" in seen
        assert "not-a-real-secret" not in seen
        assert {finding[0] for finding in found.values()} == {"not checked"}


def test_a_server_that_hangs(look):
    with ApiServer() as api:
        api.delay = 40
        found = look(api)
        verdict, seen, _ = found.pop("server")
        assert verdict == "problem" and f"{api.url}" in seen and "does not answer in 10 s" in seen
        assert {finding[0] for finding in found.values()} == {"not checked"}
        api.delay = 0


def test_queues_that_we_may_not_see(look):
    with ApiServer() as api:
        api.failing["queues.get_all"] = 403
        verdict, seen, _ = look(api)["queue"]
        assert verdict == "problem" and "queues.get_all" in seen  # as bad as its check says


def test_without_clearml(look):
    assert look(None, environment={"A": "b"})["server"][0] == "not checked"
    assert {f[0] for f in look(None, environment={"A": "b"}, wanted=False).values()} == {
        "not checked"
    }
