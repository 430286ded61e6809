"""Imports point one way: down the folders, and down the list inside a folder."""

import ast
import sys
from functools import cache
from pathlib import Path

APP = Path(__file__).parent.parent / "app"

FOLDERS = {  # low to high, each with its modules low to high
    "": ["errors", "stdio", "console"],
    "form": ["tables", "fields", "settings", "checks", "merge", "pasted", "file", "wizard"],
    "machine": [
        "garbage",
        "clock",
        "deadline",
        "threads",
        "network",
        "chance",
        "activity",
        "children",
        "private",
        "small_file",
        "home",
        "cgroup",
        "limits",
        "host",
        "gpu",
    ],
    "models": [
        "surroundings",
        "reference",
        "repository",
        "parts",
        "header",
        "gguf",
        "tiny_writer",
        "tiny",
        "progress",
        "spans",
        "pieces",
        "retry",
        "part_file",
        "snapshot",
        "transfer",
        "arrival",
        "read_ahead",
        "public",
        "session",
        "web",
        "beginning",
        "kept",
        "web_file",
        "hub_client",
        "hub",
        "greeting",
        "files",
        "remote",
        "store",
    ],
    "engine": [
        "lifecycle",
        "output",
        "rope",
        "flags",
        "resolved",
        "arguments",
        "environment",
        "capabilities",
        "bell",
        "passage",
        "exchange",
        "http",
        "speech",
        "clearing",
        "stuck",
        "program",
        "process",
        "guard",
        "server",
    ],
    "planning": [
        "amounts",
        "placement",
        "arithmetic",
        "learned",
        "site",
        "fit_params",
        "footprint",
        "budget",
        "settle",
        "named_files",
        "candidate",
        "disk",
        "draft",
        "allot",
        "plan",
        "report",
    ],
    "memory": [
        "caller",
        "residency",
        "turns",
        "backoff",
        "fair",
        "seat",
        "stages",
        "moves",
        "remains",
        "shown",
        "kv_budget",
        "line",
        "ledger",
        "kv",
        "mover",
        "checkpoint_child",
        "checkpoint",
        "tiers",
        "room",
        "loads",
        "lease",
        "departures",
        "pool",
    ],
    "telemetry": [
        "samples",
        "speculation",
        "callers",
        "idle",
        "keeps",
        "history",
        "logs",
        "readings",
        "overview",
        "sources",
        "scalars",
        "conventions",
        "windows",
        "prometheus",
        "past",
    ],
    "page": ["assemble", "examples", "plots"],
    "gateway": [
        "http.limits",
        "http.households",
        "http.heads",
        "http.ids",
        "http.stamps",
        "http.turnstile",
        "http.shares",
        "http.outlet",
        "http.request",
        "http.reader",
        "http.pipeline",
        "http.connection",
        "http.connections",
        "http.server",
        "routes",
        "origins",
        "guesses",
        "keys_file",
        "quota",
        "roster",
        "admission",
        "labels",
        "callers",
        "trust",
        "tls",
        "body.encoding",
        "body.strict",
        "body.media",
        "body.outline",
        "body.asked",
        "body.beginning",
        "body.examine",
        "body.form",
        "body.sizes",
        "body.room",
        "body.fair",
        "body.worker",
        "body.workers",
        "body.reading",
        "headers",
        "upstream_error",
        "streams",
        "relay",
        "waiting",
        "demand",
        "counting",
        "call",
        "rules",
        "passing",
        "proxy",
        "pages.status",
        "pages.past",
        "pages.admin",
        "pages.joined",
        "pages.document",
        "pages.events",
    ],
    "task": [
        "sdk",
        "api",
        "login",
        "direct",
        "quiet",
        "configuration",
        "mode",
        "last_will_child",
        "live",
        "secret",
        "outcome",
        "last_will",
        "last_words",
        "claim",
        "file_server",
        "reporting",
        "inputs",
        "checkout",
        "script",
        "session",
        "survey",
        "clearml_task",
        "shards",
        "downloads",
        "weights",
        "route",
        "endpoints",
        "thinning",
        "reporter",
        "usage",
        "presence",
        "served",
        "awaited",
        "container",
        "launch",
        "requeue",
    ],
    "instance": [
        "invocation",
        "ending",
        "opening",
        "announce",
        "measured",
        "parking",
        "places",
        "seats",
        "fetched",
        "bring_up",
        "rows",
        "reports",
        "keys",
        "callers",
        "joining",
        "doorway",
        "front",
        "phases",
        "lifetime",
        "life",
    ],
    "fleet": [
        "config",
        "ring",
        "affinity",
        "listing",
        "scaling",
        "proven",
        "member",
        "server",
        "lock",
        "drafts",
        "doors",
        "orders",
        "turns",
        "standing",
        "journey",
        "routes",
        "arrivals",
        "edits",
        "looks",
        "watch",
        "metrics",
        "pages",
        "reports",
        "door",
    ],
    "doctor": [
        "finding",
        "examination",
        "releases",
        "gpus",
        "binary",
        "machine",
        "clearml",
        "hub",
    ],
    "commands": [
        "options",
        "paths",
        "serve",
        "check",
        "doctor",
        "launch",
        "fleet",
        "key",
        "export",
        "fetch",
        "cache",
        "package",
    ],
    "top": ["main", "__main__"],
}
ORDER = [
    module if folder in ("", "top") else f"{folder}.{module}"
    for folder, modules in FOLDERS.items()
    for module in modules
]
RANK = {module: rank for rank, module in enumerate(ORDER)}
PURE = {
    "errors",
    "form.tables",
    "form.fields",
    "form.settings",
    "form.checks",
    "form.merge",
    "form.file",
    "form.pasted",
    "form.wizard",
    "models.pieces",
    "models.public",
    "models.retry",
    "models.reference",
    "models.spans",
    "engine.lifecycle",
    "engine.output",
    "memory.backoff",
    "memory.caller",
    "engine.rope",
    "engine.flags",
    "engine.resolved",
    "engine.arguments",
    "engine.environment",
    "engine.stuck",
    "planning.placement",
    "memory.residency",
    "planning.amounts",
    "planning.budget",
    "memory.turns",
    "memory.fair",
    "memory.seat",
    "memory.moves",
    "memory.remains",
    "memory.shown",
    "memory.kv_budget",
    "telemetry.samples",
    "telemetry.speculation",
    "telemetry.callers",
    "telemetry.windows",
    "telemetry.idle",
    "telemetry.keeps",
    "telemetry.sources",
    "telemetry.scalars",
    "telemetry.conventions",
    "gateway.http.limits",
    "gateway.http.heads",
    "gateway.http.connections",
    "gateway.routes",
    "gateway.origins",
    "gateway.guesses",
    "gateway.keys_file",
    "gateway.quota",
    "gateway.roster",
    "gateway.callers",
    "gateway.trust",
    "gateway.body.strict",
    "gateway.body.media",
    "gateway.body.examine",
    "gateway.body.outline",
    "gateway.body.asked",
    "gateway.body.beginning",
    "gateway.demand",
    "gateway.body.sizes",
    "gateway.body.room",
    "gateway.headers",
    "gateway.upstream_error",
    "gateway.streams",
    "instance.seats",
    "fleet.config",
    "fleet.ring",
    "fleet.affinity",
    "fleet.listing",
    "fleet.scaling",
    "task.container",
    "task.served",
    "task.thinning",
    "doctor.finding",
    "doctor.releases",
}
PARSERS = {"tomli"}  # of texts: they do no I/O
OWNERS = {
    "tomli": {"form.tables"},  # of Python itself from 3.11 on, as tomllib
    "backports": {"gateway.body.encoding"},
    "compression": {"gateway.body.encoding"},  # of Python itself from 3.14 on
    "certifi": {"task.last_will"},  # the certificates of the SDK's client, which brings it
    "clearml": {
        "task.api",
        "task.configuration",
        "task.direct",
        "task.downloads",
        "task.login",
        "task.mode",
        "task.quiet",
        "task.weights",
        "task.reporting",
        "task.route",
    },
    "gguf": {"models.tiny_writer"},
    "httptools": {"gateway.http.reader", "engine.exchange"},
    "huggingface_hub": {"models.hub", "models.hub_client", "models.greeting"},
    "numpy": {"models.tiny_writer"},
    "prometheus_client": {"telemetry.prometheus", "fleet.metrics"},
    "psutil": {"machine.host"},
    "requests": {"models.session", "models.web"},
    "urllib3": {"models.session", "models.web"},
    "python_multipart": {"gateway.body.form"},
    "pynvml": {"machine.gpu"},
    "uvloop": {"main"},
}
# What a simulation of the whole app puts its own in the place of: each has one module.
SEAMS = {
    "machine.clock": {"time.monotonic", "time.time", "time.perf_counter", "time.sleep"},
    "machine.threads": {"asyncio.to_thread", "threading.Thread", "threading.Lock"},
    "machine.children": {"subprocess.run", "subprocess.Popen", "os.fork", "os.posix_spawn"},
    "machine.network": {"socket.socket", "socket.create_connection", "create_server"},
    "machine.chance": {"secrets.token_hex", "secrets.token_urlsafe", "os.urandom"},
}
SEAMS["machine.network"] |= {"create_connection", "create_unix_connection", "asyncio.start_server"}
SEAMS["machine.threads"] |= {"run_in_executor", "ThreadPoolExecutor", "queue.Queue"}
SEAMS["machine.chance"] |= {"random.random", "random.choice", "random.randint", "uuid.uuid4"}
SEAMS["machine.children"] |= {"create_subprocess_exec", "create_subprocess_shell", "os.system"}
SEAMS["machine.children"] |= {"os.killpg", "os.pidfd_open"}
IO = {"asyncio", "subprocess", "socket", "threading", "time", "os", "pathlib"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(APP).with_suffix("").parts)


MODULES = sorted(name_of(path) for path in APP.rglob("*.py") if path.stem != "__init__")


@cache
def tree(module: str) -> list[ast.AST]:
    """Every node of a module's code."""
    source = (APP / module.replace(".", "/")).with_suffix(".py").read_text()
    return list(ast.walk(ast.parse(source)))


@cache
def imports(module: str) -> set[str]:
    found = set()
    for node in tree(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative import"
            package = node.module or ""
            found |= {f"{package}.{alias.name}" for alias in node.names} | {package}
    return found


def internal(module: str) -> set[str]:
    names = {name.removeprefix("app.") for name in imports(module) if name.startswith("app.")}
    return {name for name in names if name in RANK}


def external(module: str) -> set[str]:
    roots = {name.split(".")[0] for name in imports(module)} - {"app"}
    return roots - sys.stdlib_module_names


def test_every_module_is_listed():
    assert sorted(MODULES) == sorted(ORDER)


def test_imports_point_down():
    upwards = [
        (module, name)
        for module in MODULES
        for name in internal(module)
        if RANK[name] >= RANK[module]
    ]
    assert upwards == []


def test_each_third_party_package_has_its_owner():
    users = [(module, package) for module in MODULES for package in external(module)]
    assert [(m, package) for m, package in users if m not in OWNERS.get(package, set())] == []


def test_pure_modules_do_no_io():
    found = {
        module: (imports(module) & IO) | (external(module) - PARSERS) for module in sorted(PURE)
    }
    assert {module: names for module, names in found.items() if names} == {}


@cache
def names_used(module: str) -> set[str]:
    """Every `name` and `package.name` that a module's code uses, whatever it is imported as."""
    found = set()
    for node in tree(module):
        if isinstance(node, ast.Attribute):
            owner = f"{node.value.id}." if isinstance(node.value, ast.Name) else ""
            found |= {node.attr, f"{owner}{node.attr}"}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_each_seam_has_one_module():
    users = {
        seam: {module for module in MODULES if names_used(module) & names}
        for seam, names in SEAMS.items()
    }
    assert users == {seam: {seam} for seam in SEAMS}, "use the seam's module instead"


def test_nothing_loses_a_cancellation():
    """As asyncio.wait_for does: see machine/deadline.py."""
    users = {module for module in MODULES if "wait_for" in names_used(module)}
    assert not users
