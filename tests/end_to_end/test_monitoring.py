"""The dashboard and the alerts against what a real instance tells after real requests, and, where
there is one, against a real Prometheus that reads it."""

import hashlib
import json
import os
import re
import subprocess
import urllib.parse
import urllib.request

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.conftest import PATIENCE, ROOT, free_port
from tests.end_to_end.test_page import SHORT, two_models
from tests.end_to_end.test_serving import chat, client, until
from tests.monitoring import ALERTS, PROMETHEUS, PROMTOOL, RULES, metrics, queries

KEY = "the-key"
OPERATIONS = ROOT / "docs/operations.md"
SETTINGS = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: llamacpp
    authorization: {{credentials: {key}}}
    static_configs: [{{targets: ["{target}"]}}]
"""


@pytest.fixture
def app(start, cache, tmp_path):
    """An instance to which everything has happened that is measured."""
    keys = tmp_path / "keys.toml"
    digest = hashlib.sha256(b"alice-key").hexdigest()
    keys.write_text(f'[alice]\nsha256 = "{digest}"')
    variables = {"LLAMACPP_API_KEYS_FILE": str(keys), "LLAMACPP_API_KEY": KEY}
    app = start(*two_models(cache, **SHORT), **variables).ready()
    use(app)
    return app


def use(app):
    for key in (KEY, "alice-key"):
        chat(client(app, "alpha", api_key=key))
        list(chat(client(app, "alpha", api_key=key), stream=True))
    with pytest.raises(openai.APIStatusError):
        client(app, "alpha", api_key=KEY).embeddings.create(model="alpha", input="x")


def told(app):
    asked = urllib.request.Request(f"{app.url}/metrics", headers={"X-Api-Key": KEY})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        return answer.read().decode()


def test_every_metric_that_is_asked_for_is_there(app):
    families = list(text_string_to_metric_families(told(app)))
    there = {sample.name for family in families for sample in family.samples}
    declared = {family.name for family in families}
    missing = metrics() - there
    assert all(name.startswith("llamacpp_gpu_memory") for name in missing)  # where there is none
    assert missing <= declared
    text = told(app)
    for line in (
        'vllm:num_requests_running{model_name="alpha"} 0.0',
        'vllm:num_requests_waiting{model_name="alpha"} 0.0',
        'llamacpp_caller_requests_total{caller="alice"} 2.0',
        'llamacpp_model_loads_total{model="alpha",tier="disk"} 1.0',
    ):
        assert line in text.splitlines()
    chats = 'gen_ai_operation_name="chat",gen_ai_provider_name="llama.cpp"'
    duration = f'gen_ai_server_request_duration_seconds_count{{error_type="",{chats}'
    assert f'{duration},gen_ai_request_model="alpha"}} 4.0' in text
    assert 'error_type="501",gen_ai_operation_name="embeddings"' in text
    first = f"gen_ai_server_time_to_first_token_seconds_count{{{chats}"
    assert f'{first},gen_ai_request_model="alpha"}} 2.0' in text


COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)```", OPERATIONS.read_text(), re.M | re.S)
    for line in block.splitlines()
    if line.startswith(("curl", "promtool"))
]


def test_the_runbooks_commands_work(app):
    """Every `curl` and `promtool` of docs/operations.md."""
    assert len(COMMANDS) >= 5
    variables = {**os.environ, "URL": app.url, "KEY": KEY}
    for command in COMMANDS:
        if command.startswith("promtool") and PROMTOOL is None:
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stdout and '"error"' not in done.stdout, command


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
def test_a_real_prometheus_answers_every_query(app, tmp_path):
    port = free_port()
    target = app.url.removeprefix("http://")
    settings = tmp_path / "prometheus.yml"
    settings.write_text(SETTINGS.format(rules=RULES, key=KEY, target=target))
    data, listen = tmp_path / "data", f"127.0.0.1:{port}"
    command = [PROMETHEUS, f"--config.file={settings}", f"--storage.tsdb.path={data}"]
    prometheus = subprocess.Popen([*command, f"--web.listen-address={listen}"])
    try:
        until(lambda: reachable(listen) and len(ask(listen, "up == 1")) == 1)
        use(app)  # so that counters grow while they are read
        until(lambda: ask(listen, "rate(llamacpp_requests_total[10s]) > 0"))
        for query in queries():
            found = ask(listen, filled(query))
            # No GPU, and nothing that would alert.
            assert found or "gpu" in query or query in [rule["expr"] for rule in ALERTS], query
        assert ask(listen, 'ALERTS{alertstate="firing"}') == []
    finally:
        prometheus.terminate()
        prometheus.wait(PATIENCE)


def filled(query):
    """As Grafana sends it, but also with what is zero."""
    query = query.removesuffix(" > 0").replace("$__rate_interval", "10s")
    return query.replace("$instance", ".*").replace("$model", ".*")


def reachable(listen):
    try:
        return urllib.request.urlopen(f"http://{listen}/-/ready", timeout=PATIENCE).status == 200
    except OSError:
        return False


def ask(listen, query):
    text = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"http://{listen}/api/v1/query?{text}", timeout=PATIENCE) as answer:
        return json.load(answer)["data"]["result"]
