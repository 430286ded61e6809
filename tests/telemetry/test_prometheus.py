from prometheus_client.parser import text_string_to_metric_families

from app.machine.gpu import Device
from app.memory.ledger import ModelState
from app.memory.moves import Departure, Moves
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
    assert found["llamacpp_inter_token_seconds_count", "a"] == 1  # of a stream


def test_when_models_came_and_left_is_counted_by_tier_and_reason():
    moves = Moves()
    moves.came("ram", 0.25)
    moves.came("disk", 2.0)
    moves.left(Departure.ROOM)
    moves.failed("broken")
    found = read(Metrics(overview(view("a", moves=moves)), lambda: 0.0))
    assert found["llamacpp_model_loads_total", "a", "ram"] == 1
    assert found["llamacpp_model_load_seconds_total", "a", "disk"] == 2.0
    assert found["llamacpp_model_departures_total", "a", "room"] == 1
    assert found["llamacpp_model_departures_total", "a", "unused"] == 0
    assert found["llamacpp_model_failures_total", "a"] == 1


def test_what_the_endpoint_picker_of_the_gateway_api_asks_for():
    seen = overview(view("a", leased=2, waiting=3, kv_usage=0.25), view("b"))
    text = Metrics(seen, lambda: 0.0).text().decode().splitlines()
    assert 'vllm:num_requests_running{model_name="a"} 2.0' in text
    assert 'vllm:num_requests_waiting{model_name="a"} 3.0' in text
    assert 'vllm:kv_cache_usage_perc{model_name="a"} 0.25' in text
    assert 'vllm:kv_cache_usage_perc{model_name="b"} 0.0' in text
    assert 'llamacpp_kv_usage_ratio{model="a"} 0.25' in text
    assert not any(line.startswith('llamacpp_kv_usage_ratio{model="b"}') for line in text)


def test_opentelemetrys_metrics_of_a_model_server():
    told = Metrics(overview(*VIEWS), lambda: 0.0)
    stream = {"first_token": 0.03, "tokens": Tokens(prompt=10, generated=11)}
    told.add(sample(latency=0.23, operation="chat", **stream))
    told.add(sample(latency=0.5, operation="embeddings", tokens=Tokens(prompt=4)))
    told.add(sample(latency=0.5, operation="chat", status=502, **stream))
    told.add(sample(latency=0.5, tokens=Tokens()))  # /tokenize: no operation of a model
    lines = told.text().decode().splitlines()
    chat = 'gen_ai_operation_name="chat",gen_ai_provider_name="llama.cpp",gen_ai_request_model="a"'
    duration = "gen_ai_server_request_duration_seconds"
    assert f'{duration}_count{{error_type="",{chat}}} 1.0' in lines
    assert f'{duration}_bucket{{error_type="",{chat},le="0.32"}} 1.0' in lines
    assert f'{duration}_count{{error_type="502",{chat}}} 1.0' in lines
    assert sum(line.startswith(f"{duration}_count") for line in lines) == 3
    # Of answers that succeeded: 0.2 s for the 10 tokens after the first.
    assert f"gen_ai_server_time_to_first_token_seconds_count{{{chat}}} 1.0" in lines
    per_token = "gen_ai_server_time_per_output_token_seconds"
    assert f'{per_token}_bucket{{{chat},le="0.025"}} 1.0' in lines
    assert f'{per_token}_bucket{{{chat},le="0.01"}} 0.0' in lines


def test_the_process_is_told_of_as_prometheus_clients_do():
    found = read(Metrics(overview(*VIEWS), lambda: 0.0))
    assert found["process_start_time_seconds",] > 1e9
    assert 0 < found["process_open_fds",] < found["process_max_fds",]
