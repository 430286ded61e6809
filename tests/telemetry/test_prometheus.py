from prometheus_client.parser import text_string_to_metric_families

from app.machine.gpu import Device
from app.memory.ledger import ModelState
from app.telemetry.overview import Phase
from app.telemetry.prometheus import Metrics
from app.telemetry.samples import Tokens
from tests.telemetry.examples import overview, sample, view

VIEWS = (
    view("a", admitted=3, leased=2, denied=4, waiting=1, switches=5),
    view("b", state=ModelState.COLD),
)


def read(metrics):
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_is_as_it_is_now():
    seen = overview(*VIEWS, devices=[Device("0", "CUDA0", "H200", 10, 20)])
    found = read(Metrics(seen, lambda: 12.5))
    assert found["llamacpp_requests_in_flight", "a"] == 2
    assert found["llamacpp_requests_waiting", "a"] == 1
    assert found["llamacpp_denied_requests_total", "a"] == 4
    assert found["llamacpp_model_switches_total", "a"] == 5
    assert found["llamacpp_model_state", "a", "ready"] == 1
    assert found["llamacpp_model_state", "b", "ready"] == 0
    assert found["llamacpp_model_state", "b", "cold"] == 1
    assert found["llamacpp_idle_seconds",] == 0
    assert found["llamacpp_gpu_memory_used_bytes", "0"] == 10
    assert found["llamacpp_gpu_memory_total_bytes", "0"] == 20


def test_the_idle_time_is_there_in_every_phase():
    seen = overview(view())
    assert read(Metrics(seen, lambda: 12.5))["llamacpp_idle_seconds",] == 12.5
    seen.phase = Phase.SETTING_UP
    assert read(Metrics(seen, lambda: 12.5))["llamacpp_idle_seconds",] == 0


def test_finished_requests_are_counted_by_status():
    told = Metrics(overview(*VIEWS), lambda: 0.0)
    tokens = Tokens(prompt=10, cached=4, generated=6)
    told.add(sample(latency=0.2, first_token=0.03, tokens=tokens, wait=0.001, size=100))
    told.add(sample(latency=7.0, tokens=Tokens(prompt=1, generated=1), size=50))
    told.add(sample(status=499, latency=0.1, tokens=Tokens()))
    found = read(told)
    assert found["llamacpp_requests_total", "200", "a"] == 2
    assert found["llamacpp_requests_total", "499", "a"] == 1
    assert found["llamacpp_prompt_tokens_total", "a"] == 11
    assert found["llamacpp_cached_tokens_total", "a"] == 4
    assert found["llamacpp_generated_tokens_total", "a"] == 7
    assert found["llamacpp_response_bytes_total", "a"] == 150
    assert found["llamacpp_request_seconds_bucket", "0.25", "a"] == 2
    assert found["llamacpp_request_seconds_count", "a"] == 3
    assert found["llamacpp_time_to_first_token_seconds_count", "a"] == 1
    assert found["llamacpp_queue_wait_seconds_count", "a"] == 1
    assert found["llamacpp_generated_tokens_total", "b"] == 0  # there before its first step
