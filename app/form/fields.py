"""Every field of the form, once: settings, argv, `--help` and the launch form derive from this."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MODEL, GENERAL, IDLE, ARGS = "Model", "General", "Idle", "Args"
CONTAINER_IMAGE = "ghcr.io/llamacpp-model-deployment/app:latest"


class Kind(enum.Enum):
    """The field types of a ClearML launch form."""

    STRING = "string"
    TEXT = "multiline_text"
    INTEGER = "integer"
    FLOAT = "float"
    CHECKBOX = "checkbox"
    DROPDOWN = "dropdown"


@dataclass(frozen=True)
class Field:
    """One field.

    `flag` are the spellings of llama-server's option that takes the value; `on` and `off` what a
    ticked and an unticked checkbox send. Each is a choice, newest spelling first: the first that
    the binary at hand knows is used. `sent_as` are choices that llama-server spells otherwise;
    its own spelling is taken too. `resolved` fields decide memory: they are settled once, at
    preflight, and sent from there. `cli_keeps` fields hold although CLI replaces the rest. A
    `secret` is taken from the form and kept nowhere.
    """

    section: str
    name: str
    title: str
    info: str
    kind: Kind = Kind.STRING
    default: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    sent_as: tuple[tuple[str, str], ...] = ()
    flag: tuple[str, ...] = ()
    on: tuple[tuple[str, ...], ...] = ()
    off: tuple[tuple[str, ...], ...] = ()
    resolved: bool = False
    cli_keeps: bool = False
    secret: bool = False

    @property
    def key(self) -> str:
        return f"{self.section}/{self.name}" if self.section else self.name


FIELDS: tuple[Field, ...] = (
    Field(
        MODEL,
        "cli",
        "CLI",
        "llama-server arguments. If set, they replace every other field of this model except "
        "Model, Multimodal Projector, Model Endpoint Name, Max Concurrent Requests, Preload, Pin "
        "and Priority. Its own -m and --mmproj may be Hugging Face paths.",
        Kind.TEXT,
    ),
    Field(
        MODEL,
        "verbose",
        "Verbose",
        "Show llama-server's detailed log.",
        Kind.CHECKBOX,
        "false",
        on=(("--verbosity", "4"), ("--log-verbosity", "4")),
    ),
    Field(
        MODEL,
        "no_mmap",
        "No MMAP",
        "Read the model into memory instead of mapping the file: steadier on some systems, but "
        "the memory can no longer be reclaimed or shared.",
        Kind.CHECKBOX,
        "false",
        on=(("--load-mode", "none"), ("--no-mmap",)),
    ),
    Field(
        MODEL,
        "continuous_batching",
        "Continuous Batching",
        "Work on several requests in one batch: better throughput for concurrent requests.",
        Kind.CHECKBOX,
        "true",
        on=(("--cont-batching",),),
        off=(("--no-cont-batching",),),
    ),
    Field(
        MODEL,
        "embedding",
        "Embedding",
        "Generate embeddings instead of text.",
        Kind.CHECKBOX,
        "false",
        on=(("--embedding",), ("--embeddings",)),
    ),
    Field(
        MODEL,
        "model",
        "Model",
        "The GGUF file: a ClearML Model ID, a Hugging Face path provider/repo/path/to/model.gguf "
        "(of a revision: provider/repo@revision/path), or a path on the machine. Of a split model "
        "the first part, or a glob such as L*.gguf that matches just its parts.",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "endpoint_name",
        "Model Endpoint Name",
        "The name that callers use, in the URL and as `model`. Empty: made from Model.",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "gpu_layers",
        "Number of GPU Layers",
        "How many layers to keep in GPU memory; 9999 keeps all. Empty: as many as fit.",
        Kind.INTEGER,
        minimum=0,
        maximum=9999,
        flag=("--gpu-layers", "--n-gpu-layers"),
        resolved=True,
    ),
    Field(
        MODEL,
        "repeat_penalty",
        "Repeat Penalty",
        "Penalty for repeated tokens; 1.0 is none. Empty: llama-server's own (1.0).",
        Kind.FLOAT,
        minimum=0.01,
        maximum=100,
        flag=("--repeat-penalty",),
    ),
    Field(
        MODEL,
        "temperature",
        "Temperature",
        "Default sampling temperature. Empty: llama-server's own (0.8).",
        Kind.FLOAT,
        minimum=0,
        maximum=100,
        flag=("--temperature", "--temp"),
    ),
    Field(
        MODEL,
        "top_k",
        "Top-K",
        "Sample from so many of the likeliest tokens; 0 is all. Empty: llama-server's own (40).",
        Kind.INTEGER,
        minimum=0,
        maximum=1 << 30,
        flag=("--top-k",),
    ),
    Field(
        MODEL,
        "top_p",
        "Top-P",
        "Sample from the likeliest tokens that together reach this probability; 1 is all. "
        "Empty: llama-server's own (0.95).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--top-p",),
    ),
    Field(
        MODEL,
        "min_p",
        "Min-P",
        "Drop tokens below this share of the likeliest one's probability; 0 is none. "
        "Empty: llama-server's own (0.05).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--min-p",),
    ),
    Field(
        MODEL,
        "xtc_probability",
        "XTC Probability",
        "How often XTC (exclude top choices) is applied. Empty: llama-server's own (0: never).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--xtc-probability",),
    ),
    Field(
        MODEL,
        "xtc_threshold",
        "XTC Threshold",
        "XTC excludes tokens above this probability, but for the least of them. "
        "Empty: llama-server's own (0.1).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--xtc-threshold",),
    ),
    Field(
        MODEL,
        "typical_p",
        "Typical-P",
        "Locally typical sampling; 1 is off. Empty: llama-server's own (1).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--typical", "--typical-p"),
    ),
    Field(
        MODEL,
        "repeat_last_n",
        "Repeat Last N",
        "So many last tokens count for Repeat Penalty; 0 is none. Empty: llama-server's own (64).",
        Kind.INTEGER,
        minimum=0,
        maximum=1 << 30,
        flag=("--repeat-last-n",),
    ),
    Field(
        MODEL,
        "context_size",
        "Context Size",
        "Tokens that all slots share; one request may use them all. 0 or empty: what the model "
        "was trained with, or what fits.",
        Kind.INTEGER,
        minimum=0,
        maximum=1 << 30,
        flag=("--ctx-size",),
        resolved=True,
    ),
    Field(
        MODEL,
        "rope_freq_base",
        "RoPE Frequency Base",
        "Base frequency of RoPE; 10000 for many models. Empty or 0: the model's own.",
        Kind.FLOAT,
        minimum=0,
        maximum=1e12,
        flag=("--rope-freq-base",),
    ),
    Field(
        MODEL,
        "rope_scaling",
        "RoPE Scaling",
        "How the context is stretched: a factor, such as 2, or a method: none, linear, yarn. "
        "Empty: the model's own.",
    ),
    Field(
        MODEL,
        "rope_freq_scale",
        "RoPE Frequency Scale",
        "Frequency scaling of RoPE; 0.5 stretches the context by 2. Empty: the model's own.",
        Kind.FLOAT,
        minimum=1e-6,
        maximum=1000,
        flag=("--rope-freq-scale",),
    ),
    Field(
        MODEL,
        "yarn_ext_factor",
        "YaRN Extrapolation Mix Factor",
        "Of the YaRN method: 1 is full extrapolation, -1 turns it off. Empty: the model's own.",
        Kind.FLOAT,
        minimum=-1,
        maximum=100,
    ),
    Field(
        MODEL,
        "yarn_attn_factor",
        "YaRN Attention Factor",
        "Of the YaRN method: scales the attention. Empty: the model's own (1.0).",
        Kind.FLOAT,
        minimum=0,
        maximum=100,
    ),
    Field(
        MODEL,
        "yarn_beta_fast",
        "YaRN Beta Fast",
        "Of the YaRN method: correction of near tokens. Empty: the model's own (32.0).",
        Kind.FLOAT,
        minimum=0,
        maximum=10_000,
    ),
    Field(
        MODEL,
        "yarn_beta_slow",
        "YaRN Beta Slow",
        "Of the YaRN method: correction of far tokens. Empty: the model's own (1.0).",
        Kind.FLOAT,
        minimum=0,
        maximum=10_000,
    ),
    Field(
        MODEL,
        "threads",
        "Threads",
        "CPU threads for generation. Empty: the machine's cores, divided among the models that can "
        "be in memory at the same time.",
        Kind.INTEGER,
        minimum=1,
        maximum=1024,
        flag=("--threads",),
        resolved=True,
    ),
    Field(
        MODEL,
        "threads_batch",
        "Threads Batch",
        "CPU threads for reading prompts. Empty: as Threads.",
        Kind.INTEGER,
        minimum=1,
        maximum=1024,
        flag=("--threads-batch",),
        resolved=True,
    ),
    Field(
        MODEL,
        "tensor_split",
        "Tensor Split",
        "Shares of the model by GPU: 3,2 puts 60 % on the first. Empty: by free memory.",
        flag=("--tensor-split",),
    ),
    Field(
        MODEL,
        "parallel",
        "Parallel",
        "Slots: requests worked on at the same time. Empty: 4.",
        Kind.INTEGER,
        minimum=1,
        maximum=256,
        flag=("--parallel",),
        resolved=True,
    ),
    Field(
        MODEL,
        "max_concurrent_requests",
        "Max Concurrent Requests",
        "Requests beyond this many are denied (429) instead of waiting. Empty: no limit.",
        Kind.INTEGER,
        minimum=1,
        maximum=1_000_000,
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "numa",
        "NUMA",
        "On machines with several memory nodes: distributed spreads over all, isolate stays on "
        "the first, numactl follows the system. Empty: off.",
        Kind.DROPDOWN,
        choices=("distributed", "isolate", "numactl"),
        sent_as=(("distributed", "distribute"),),
        flag=("--numa",),
    ),
    Field(
        MODEL,
        "split_mode",
        "Split Mode",
        "Over several GPUs: none uses one, layer splits by layers, row splits matrices. "
        "Empty: layer.",
        Kind.DROPDOWN,
        choices=("none", "layer", "row"),
        flag=("--split-mode",),
    ),
    Field(
        MODEL,
        "main_gpu",
        "Main GPU",
        "The GPU that does the work with Split Mode none, and holds small tensors with row.",
        Kind.INTEGER,
        minimum=0,
        maximum=127,
        flag=("--main-gpu",),
    ),
    Field(
        MODEL,
        "mmproj",
        "Multimodal Projector",
        "For models that see or hear: their mmproj GGUF file, named as Model is.",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "preload",
        "Preload",
        "Load at the start: as many of these models as fit together, in their order. Else at the "
        "first request.",
        Kind.CHECKBOX,
        "true",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "pin",
        "Pin",
        "Never move this model out of memory for another one.",
        Kind.CHECKBOX,
        "false",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "priority",
        "Priority",
        "Of models that wait for memory the highest goes first, and leaves last. Nobody starves.",
        Kind.INTEGER,
        "0",
        minimum=-100,
        maximum=100,
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "extra_args",
        "Extra Arguments",
        "llama-server arguments besides the fields above, for what the form lacks.",
        Kind.TEXT,
    ),
    Field(
        GENERAL,
        "models",
        "Model Configuration",
        "Several models: a JSON list of objects, each with the fields of the section Model. "
        "Model/<field> then overrides the first, Model_2/<field> the second, and so on.",
        Kind.TEXT,
    ),
    Field(
        GENERAL,
        "instance_name",
        "Instance Name",
        "The task's name. Empty: it keeps the one it has, or gets the first model's.",
    ),
    Field(
        GENERAL,
        "project",
        "Service Project - Access Control",
        "The ClearML project of the instance; who may read it may use the instance. Empty: where "
        "the task is, or Llama.cpp Model Deployment for a task that is created.",
    ),
    Field(
        GENERAL,
        "queue",
        "Queue",
        "Where the instance runs. A task that is started on a CPU-only services agent moves itself "
        "to this queue.",
    ),
    Field(
        GENERAL,
        "gateway_route",
        "AI Gateway Route",
        "Name of a static route of the ClearML AI App Gateway. Empty: a dynamic route is used.",
    ),
    Field(
        GENERAL,
        "debug",
        "Enable Debug Mode",
        "Log every request, and llama-server's debug output.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "disable_logs",
        "Disable Logs",
        "Do not show llama-server's log lines.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "cpu_offloading",
        "Enable Automatic CPU Offloading",
        "Models that do not fit into GPU memory together share it: idle ones move to CPU RAM, and "
        "come back on request.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "disk_swapping",
        "Enable Disk Swapping",
        "Models that do not fit into GPU memory together share it: idle ones move to disk, and "
        "come back on request. Not together with Automatic CPU Offloading.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "hf_token",
        "Hugging Face Token",
        "For models that need one. It is taken from the form and removed from the task at once, so "
        "a second run needs it again, unless the model is in the cache. Better: set HF_TOKEN where "
        "the agent runs.",
        secret=True,
    ),
    Field(
        GENERAL,
        "max_cuda_memory",
        "Max CUDA Memory (GiB)",
        "GPU memory that the models may use together, per GPU; may exceed the hardware, the "
        "surplus then lies in CPU RAM. Empty: what the GPU has.",
        Kind.FLOAT,
        minimum=0.05,
        maximum=100_000,
    ),
    Field(
        GENERAL,
        "cuda_memory_threshold",
        "CUDA Memory Manager Minimum Threshold",
        "In KiB: chunks up to this size are never moved out of GPU memory. Empty: -1 (none) on one "
        "GPU, 66000 on several.",
        Kind.INTEGER,
        minimum=-1,
        maximum=1 << 40,
    ),
    Field(
        GENERAL,
        "host",
        "Host",
        "Address to listen on. Empty: 0.0.0.0 under an agent or with an API key, else 127.0.0.1.",
    ),
    Field(
        GENERAL,
        "port",
        "Port",
        "Port to listen on. 0: any free port. Empty: 8080, or any free port if 8080 is taken.",
        Kind.INTEGER,
        minimum=0,
        maximum=65535,
    ),
    Field(
        GENERAL,
        "wait_timeout",
        "Wait Timeout (Seconds)",
        "How long a request may wait for its model to be ready before it gets a 503.",
        Kind.FLOAT,
        "300",
        minimum=0,
        maximum=86400,
    ),
    Field(
        GENERAL,
        "drain_timeout",
        "Drain Timeout (Seconds)",
        "How long running requests may go on when the instance stops.",
        Kind.FLOAT,
        "20",
        minimum=0,
        maximum=3600,
    ),
    Field(
        GENERAL,
        "llama_server",
        "llama-server",
        "Path of the llama-server to run. Empty: LLAMA_SERVER, then the PATH, then "
        "/app/llama-server, then the one that `make install` built.",
    ),
    Field(
        GENERAL,
        "allow_remote_media",
        "Allow Remote Media",
        "Let requests name media by URL, which llama-server then fetches.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "container_image",
        "Container Image",
        "Image that an agent in docker mode runs the task in: CUDA, llama-server at "
        "/app/llama-server, python3, git. Made by templates/Dockerfile.",
        default=CONTAINER_IMAGE,
    ),
    Field(
        GENERAL,
        "container_args",
        "Container Arguments",
        "Further arguments of `docker run`, such as -e HF_HOME=/models -v /models:/models.",
    ),
    Field(
        IDLE,
        "idle_time_limit",
        "Idle Time Limit (Hours)",
        "Shut down after this long without a request. Empty: 24 under an agent, else never; "
        "0: never.",
        Kind.FLOAT,
        minimum=0,
        maximum=87600,
    ),
    Field(
        IDLE,
        "last_action_interval",
        "Last Action Report Interval (Seconds)",
        "How often the last activity is reported, and how long after it the status stays active.",
        Kind.FLOAT,
        "60",
        minimum=1,
        maximum=86400,
    ),
)

BY_KEY = {field.key: field for field in FIELDS}
BY_NAME = {field.name: field for field in FIELDS}
HF_TOKEN_KEY = f"{GENERAL}/hf_token"
MODELS_KEY = f"{GENERAL}/models"
MODEL_FIELDS = tuple(field for field in FIELDS if field.section == MODEL)
SECTIONS = (ARGS, GENERAL, IDLE, MODEL)
