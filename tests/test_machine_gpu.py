from app.machine import gpu
from app.machine.gpu import Held, Load, machine_stats


def test_clearmls_machine_stats():
    loads = [Load(50.0, 3 << 20, 8 << 20, 61.0), Load(None, 1 << 20, 8 << 20, None)]
    assert machine_stats(loads) == {
        "gpu_usage": [50.0],
        "gpu_memory_used": [3, 1],
        "gpu_memory_free": [5, 7],
        "gpu_temperature": [61.0],
    }
    assert machine_stats([]) == {}


def test_the_driver_is_not_asked_again_at_once(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu, "held", lambda pid, names: asked.append(pid) or {"CUDA0": pid})
    held = Held(["CUDA0"], seconds=60)
    assert held.of(7) == held.of(7) == {"CUDA0": 7} and held.of(8) == {"CUDA0": 8}
    assert asked == [7, 8]
    now = Held(["CUDA0"], seconds=0)
    assert now.of(7) == now.of(7) and asked == [7, 8, 7, 7]
