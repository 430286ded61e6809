from app.engine.capabilities import Capabilities
from app.instance.rows import devices
from app.machine.gpu import Device
from app.memory.ledger import ModelState, Tier, View
from app.planning.plan import Plan
from app.planning.site import Site


def test_gpus_that_the_driver_is_not_there_for(tmp_path):
    """AMD's, say: what models count for is what is known of their use."""
    known = Capabilities({}, tmp_path / "llama-server", {"Vulkan0": 24, "Vulkan1": 8})
    plan = Plan((), Site(known, None), None, {}, sharing=True)
    here = View("a", ModelState.READY, Tier.GPU, need={"Vulkan0": 5})
    there = here._replace(name="b", tier=Tier.DISK)
    assert devices(plan, lambda: [here, there], []) == [
        Device("Vulkan0", "Vulkan0", "", 5, 24),
        Device("Vulkan1", "Vulkan1", "", 0, 8),
    ]
    driver = [Device("0", "CUDA0", "H200", 1, 2)]
    assert devices(plan, lambda: [here, there], driver) == driver


def test_without_any_there_are_none(tmp_path):
    known = Capabilities({}, tmp_path / "llama-server")
    assert devices(Plan((), Site(known, None), None, {}, sharing=False), list, []) == []
