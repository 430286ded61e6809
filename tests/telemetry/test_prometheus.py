from prometheus_client.parser import text_string_to_metric_families

from app.machine.gpu import Device
from app.memory.ledger import ModelState, Tier, View
from app.telemetry.prometheus import Metrics
from app.telemetry.samples import Sample, Tokens

VIEWS = [
    View("a", ModelState.READY, Tier.GPU, "", None, 3, 2, 7, 4, 0.0, waiting=1, switches=5),
    View("b", ModelState.COLD, Tier.DISK, "", None, 0, 0, 0, 0, 0.0),
]


def read(metrics):
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def metrics():
    return Metrics(
        "ab", lambda: VIEWS, lambda: [Device("0", "CUDA0", "H200", 10, 20)], lambda: 12.5
    )


def test_what_is_as_it_is_now():
    found = read(metrics())
    assert found["llamacpp_requests_in_flight", "a"] == 2
    assert found["llamacpp_requests_waiting", "a"] == 1
    assert found["llamacpp_denied_requests_total", "a"] == 4
    assert found["llamacpp_model_switches_total", "a"] == 5
    assert found["llamacpp_model_state", "a", "ready"] == 1
    assert found["llamacpp_model_state", "b", "ready"] == 0
    assert found["llamacpp_model_state", "b", "cold"] == 1
    assert found["llamacpp_idle_seconds",] == 12.5
    assert found["llamacpp_gpu_memory_used_bytes", "0"] == 10


def test_finished_requests_are_counted_by_status():
    told = metrics()
    told.add(Sample("a", 200, 0.2, 0.03, Tokens(10, 4, 6), 0.001, 100))
    told.add(Sample("a", 200, 7.0, None, Tokens(1, 0, 1), None, 50))
    told.add(Sample("a", 499, 0.1, None, Tokens()))
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
