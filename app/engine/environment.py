"""The environment of a llama-server. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

ALLOWED = re.compile(
    r"PATH|(LD|CUDA|NVIDIA|OMP|HIP|ROCR|HSA|VK|GGML_VK|ONEAPI|ZE)_.*|LANG|LC_.*|TZ|TMPDIR|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE"
    r"|CURL_CA_BUNDLE|(https?|no|all|ftp)_proxy",
    re.I,
)
NEVER = re.compile(r"(LLAMA|AIP|HF|CLEARML|TRAINS)_.*|.*(TOKEN|SECRET|KEY|PASS|CREDENTIAL).*", re.I)


def child_environment(ours: Mapping[str, str], home: str, api_key: str) -> dict[str, str]:
    """llama-server's environment: of ours only what is allowed and no secret, and its own key."""
    kept = {k: v for k, v in ours.items() if ALLOWED.fullmatch(k) and not NEVER.fullmatch(k)}
    # Its HOME is an empty folder, so that no person's configuration applies; the kernels that CUDA
    # has compiled are kept in the person's HOME all the same.
    kept.setdefault("CUDA_CACHE_PATH", f"{ours.get('HOME', home)}/.nv/ComputeCache")
    return {
        **kept,
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "LLAMA_API_KEY": api_key,
        "LLAMA_SERVER_ROUTER_PORT": "0",  # it tells its progress, and ends when stdin does
        "GGML_NO_BACKTRACE": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
