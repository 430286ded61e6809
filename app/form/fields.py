"""Every field of the form, once: settings, argv, `--help` and the launch form derive from this."""

from __future__ import annotations

import enum
from dataclasses import dataclass

MODEL, GENERAL, IDLE, ARGS = "Model", "General", "Idle", "Args"
CONTAINER_IMAGE = "nvidia/cuda:12.8.1-runtime-ubuntu24.04"


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
    """One field of the form.

    `flag`: llama-server's option that takes the value, in every spelling, newest first; the first
    one that the installed llama-server knows is sent. `on` and `off`: what a ticked and an unticked
    checkbox send instead, again in every spelling. `sent_as`: choices that llama-server spells
    otherwise; the form accepts its spelling too. `also`: options that get the same value as `flag`.
    `resolved`: the value decides how much memory the
    model takes, so it is resolved once, before the first start, and always sent. `cli_keeps`: the
    field is used also where CLI replaces the others. `secret`: the value is taken out of the form
    and stored nowhere.
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
    also: tuple[str, ...] = ()
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
        "llama-server arguments, as on its command line. If set, they replace every other field of "
        "this model except Model, Multimodal Projector, Model Endpoint Name, Aliases, Max "
        "Concurrent Requests, Preload, Pin, Priority and Unload When Unused. The value of -m or "
        "--mmproj may be a Hugging Face path; -hf names a repository there.",
        Kind.TEXT,
    ),
    Field(
        MODEL,
        "verbose",
        "Verbose",
        "Show llama-server's detailed log, not only its errors.",
        Kind.CHECKBOX,
        "false",
        on=(("--verbosity", "4"), ("--log-verbosity", "4")),
    ),
    Field(
        MODEL,
        "no_mmap",
        "No MMAP",
        "Read the model file into memory instead of mapping it. Steadier on some systems, but the "
        "operating system can then neither reclaim nor share that memory.",
        Kind.CHECKBOX,
        "false",
        on=(("--load-mode", "none"), ("--no-mmap",)),
    ),
    Field(
        MODEL,
        "continuous_batching",
        "Continuous Batching",
        "Process several requests in one batch. This raises the throughput of concurrent requests.",
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
        "The GGUF file: a ClearML Model ID, a Hugging Face path (provider/repo/path/to/model.gguf, "
        "or provider/repo@revision/path/to/model.gguf for one revision; provider/repo:Q4_K_M names "
        "the quantization), or a path on the machine. Also https://…, clearml://project/name, "
        "s3://…, gs://… or azure://…. For a split model, name its first part, or a glob such as "
        "L*.gguf that matches its parts and nothing else.",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "endpoint_name",
        "Model Endpoint Name",
        "The name by which callers choose the model, in the URL or as `model` in the body. Empty: "
        "derived from Model; a file on the machine is called by its own name, without .gguf.",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "aliases",
        "Aliases",
        "Further names of the model, separated by commas: callers use them as they use the Model "
        "Endpoint Name. No two models may share a name. If --alias in CLI has several names, those "
        "after the first are aliases, too.",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "gpu_layers",
        "Number of GPU Layers",
        "How many of the model's layers to keep in GPU memory; 9999 keeps all. Empty: as many as "
        "fit.",
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
        "Penalty for repeated tokens; 1.0 is no penalty. Empty: llama-server's default (1.0).",
        Kind.FLOAT,
        minimum=0.01,
        maximum=100,
        flag=("--repeat-penalty",),
    ),
    Field(
        MODEL,
        "temperature",
        "Temperature",
        "Sampling temperature for requests that name none. Empty: llama-server's default (0.8).",
        Kind.FLOAT,
        minimum=0,
        maximum=100,
        flag=("--temperature", "--temp"),
    ),
    Field(
        MODEL,
        "top_k",
        "Top-K",
        "Sample only from this many of the most likely tokens; 0 is all of them. Empty: "
        "llama-server's default (40).",
        Kind.INTEGER,
        minimum=0,
        maximum=1 << 30,
        flag=("--top-k",),
    ),
    Field(
        MODEL,
        "top_p",
        "Top-P",
        "Sample only from the most likely tokens whose probabilities add up to this; 1 is all of "
        "them. Empty: llama-server's default (0.95).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--top-p",),
    ),
    Field(
        MODEL,
        "min_p",
        "Min-P",
        "Drop tokens whose probability is below this share of the most likely token's; 0 drops "
        "none. Empty: llama-server's default (0.05).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--min-p",),
    ),
    Field(
        MODEL,
        "xtc_probability",
        "XTC Probability",
        "How often XTC (exclude top choices) removes the most likely tokens; 0 is never. Empty: "
        "llama-server's default (0).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--xtc-probability",),
    ),
    Field(
        MODEL,
        "xtc_threshold",
        "XTC Threshold",
        "XTC removes all tokens above this probability except the least likely of them. Empty: "
        "llama-server's default (0.1).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--xtc-threshold",),
    ),
    Field(
        MODEL,
        "typical_p",
        "Typical-P",
        "The parameter p of locally typical sampling; 1 turns it off. Empty: llama-server's "
        "default (1).",
        Kind.FLOAT,
        minimum=0,
        maximum=1,
        flag=("--typical", "--typical-p"),
    ),
    Field(
        MODEL,
        "repeat_last_n",
        "Repeat Last N",
        "How many of the last tokens Repeat Penalty takes into account; 0 is none. Empty: "
        "llama-server's default (64).",
        Kind.INTEGER,
        minimum=0,
        maximum=1 << 30,
        flag=("--repeat-last-n",),
    ),
    Field(
        MODEL,
        "context_size",
        "Context Size",
        "Tokens of context, shared by all slots (see Parallel): one request may use all of them. "
        "At least 256. 0 or empty: as many as the model was trained with, or as fit.",
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
        "Base frequency of RoPE (rotary position embedding); 10000 for many models. Empty or 0: "
        "the model's own.",
        Kind.FLOAT,
        minimum=0,
        maximum=1e12,
        flag=("--rope-freq-base",),
    ),
    Field(
        MODEL,
        "rope_scaling",
        "RoPE Scaling",
        "How RoPE stretches the context: a factor, such as 2, or a method (none, linear or yarn). "
        "Empty: the model's own.",
    ),
    Field(
        MODEL,
        "rope_freq_scale",
        "RoPE Frequency Scale",
        "Factor on the frequencies of RoPE; 0.5 makes the context twice as long. Empty: the "
        "model's own.",
        Kind.FLOAT,
        minimum=1e-6,
        maximum=1000,
        flag=("--rope-freq-scale",),
    ),
    Field(
        MODEL,
        "yarn_ext_factor",
        "YaRN Extrapolation Mix Factor",
        "How much YaRN extrapolates: 1 is full extrapolation, -1 turns it off. The YaRN fields "
        "apply only if the method is yarn, by RoPE Scaling or by the model. Empty: the model's "
        "own.",
        Kind.FLOAT,
        minimum=-1,
        maximum=100,
    ),
    Field(
        MODEL,
        "yarn_attn_factor",
        "YaRN Attention Factor",
        "YaRN's factor on the attention. Empty: the model's own (1.0).",
        Kind.FLOAT,
        minimum=0,
        maximum=100,
    ),
    Field(
        MODEL,
        "yarn_beta_fast",
        "YaRN Beta Fast",
        "YaRN's beta fast: how relations between near tokens are scaled. Empty: the model's own "
        "(32.0).",
        Kind.FLOAT,
        minimum=0,
        maximum=10_000,
    ),
    Field(
        MODEL,
        "yarn_beta_slow",
        "YaRN Beta Slow",
        "YaRN's beta slow: how relations between distant tokens are scaled. Empty: the model's own "
        "(1.0).",
        Kind.FLOAT,
        minimum=0,
        maximum=10_000,
    ),
    Field(
        MODEL,
        "threads",
        "Threads",
        "CPU threads for generating tokens. Empty: the machine's cores, divided among the models "
        "that can be in memory at the same time.",
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
        "CPU threads for processing prompts. Empty: as many as Threads.",
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
        "How much of the model goes to each GPU: 3,2 puts 60 % on the first and 40 % on the "
        "second. Empty: all on one GPU if the model fits there, else over all GPUs in proportion "
        "to the memory that other models leave.",
        flag=("--tensor-split",),
    ),
    Field(
        MODEL,
        "parallel",
        "Parallel",
        "Slots: how many requests llama-server works on at the same time. Empty: 4.",
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
        "How many requests to this model may run or wait at the same time. Further ones are denied "
        "with status 429. Empty: no limit.",
        Kind.INTEGER,
        minimum=1,
        maximum=1_000_000,
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "numa",
        "NUMA",
        "For machines with several NUMA nodes. distributed: threads are spread over all nodes. "
        "isolate: threads stay on the node where llama-server was started. numactl: threads follow "
        "the CPU map of numactl. Empty: off.",
        Kind.DROPDOWN,
        choices=("distributed", "isolate", "numactl"),
        sent_as=(("distributed", "distribute"),),
        flag=("--numa",),
    ),
    Field(
        MODEL,
        "split_mode",
        "Split Mode",
        "How a model is divided over several GPUs. none: it uses one GPU. layer: each GPU gets "
        "whole layers. row: each GPU gets rows of the weight matrices (outdated, says llama.cpp). "
        "tensor: all GPUs work on each layer together (experimental). Empty: layer.",
        Kind.DROPDOWN,
        choices=("none", "layer", "row", "tensor"),
        flag=("--split-mode",),
    ),
    Field(
        MODEL,
        "main_gpu",
        "Main GPU",
        "The GPU, counted from 0, that holds the model with Split Mode none, or intermediate "
        "results and the KV cache with Split Mode row.",
        Kind.INTEGER,
        minimum=0,
        maximum=127,
        flag=("--main-gpu",),
    ),
    Field(
        MODEL,
        "flash_attention",
        "Flash Attention",
        "Compute attention in a way that takes less memory, and mostly less time. auto: where the "
        "hardware has it. Empty: auto.",
        Kind.DROPDOWN,
        choices=("auto", "on", "off"),
        flag=("--flash-attn",),
    ),
    Field(
        MODEL,
        "kv_cache_type",
        "KV Cache Type",
        "The type of the numbers that are kept of the context. q8_0 takes half of the memory of "
        "f16, q4_0 about a quarter, at some loss of quality. Types smaller than f16 need Flash "
        "Attention. Empty: f16.",
        Kind.DROPDOWN,
        choices=("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"),
        flag=("--cache-type-k",),
        also=("--cache-type-v",),
    ),
    Field(
        MODEL,
        "speculative",
        "Speculative Decoding",
        "Guess tokens in advance, and check several at once: faster where guesses are often right. "
        "auto: by the heads for that in the model's file (multi-token prediction), or else by what "
        "the text repeats (n-grams). Or name a small draft model with the same vocabulary, in the "
        "same ways as Model. The scalar Draft Acceptance shows how many guesses are right. "
        "Empty, or off: none.",
    ),
    Field(
        MODEL,
        "mmproj",
        "Multimodal Projector",
        "The mmproj GGUF file of a model that takes images or audio. It is named in the same ways "
        "as Model.",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "preload",
        "Preload",
        "Load the model when the instance starts. If the ticked models do not fit together, those "
        "that fit are loaded, in the order of the form. All others load on their first request.",
        Kind.CHECKBOX,
        "true",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "pin",
        "Pin",
        "Never move this model out of memory to make room for another one.",
        Kind.CHECKBOX,
        "false",
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "priority",
        "Priority",
        "Of the models that wait for memory, the one with the highest priority is loaded first; of "
        "the models in memory, it is moved out last. A model that has waited long goes first, "
        "whatever its priority.",
        Kind.INTEGER,
        "0",
        minimum=-100,
        maximum=100,
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "ttl",
        "Unload When Unused (Minutes)",
        "After so many minutes without a request the model leaves memory, even if no other model "
        "needs the room; it returns on its next request. Not together with Pin. Empty: never.",
        Kind.FLOAT,
        minimum=0.01,
        maximum=525_600,
        cli_keeps=True,
    ),
    Field(
        MODEL,
        "extra_args",
        "Extra Arguments",
        "Further llama-server arguments, for options that have no field in this form.",
        Kind.TEXT,
    ),
    Field(
        GENERAL,
        "models",
        "Model Configuration",
        "Several models: a JSON list with one object a model, whose keys are the field names of "
        "the section Model. Model/<field> overrides that field of the first model, Model_2/<field> "
        "of the second, and so on.",
        Kind.TEXT,
    ),
    Field(
        GENERAL,
        "instance_name",
        "Instance Name",
        "The task's name, unless somebody gave it another one. Empty: a task keeps its name, and a "
        "new one is named after the first model.",
    ),
    Field(
        GENERAL,
        "project",
        "Service Project - Access Control",
        "The ClearML project of the instance. Everybody who may read the project may use the "
        "instance. Empty: a task stays in its project, and a new one is created in the project "
        "Llama.cpp Model Deployment.",
    ),
    Field(
        GENERAL,
        "queue",
        "Queue",
        "The queue whose agents run the instance. A task that was started on a CPU-only services "
        "agent moves itself to this queue.",
    ),
    Field(
        GENERAL,
        "gateway_route",
        "AI Gateway Route",
        "Name of a static route of the ClearML AI App Gateway. Empty: the gateway makes a dynamic "
        "route.",
    ),
    Field(
        GENERAL,
        "debug",
        "Enable Debug Mode",
        "Log every request, and show llama-server's debug output.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "disable_logs",
        "Disable Logs",
        "Do not show llama-server's log lines on the console.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "cpu_offloading",
        "Enable Automatic CPU Offloading",
        "Let models share GPU memory that cannot hold all of them: when a request needs room, idle "
        "models are moved to CPU RAM. They return on their next request.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "disk_swapping",
        "Enable Disk Swapping",
        "Let models share GPU memory that cannot hold all of them: when a request needs room, idle "
        "models are moved to disk. They return on their next request. Cannot be combined with "
        "Automatic CPU Offloading.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "hf_token",
        "Hugging Face Token",
        "For models that need one. The app reads the token and removes it from the task at once, "
        "so another run of the task needs it again unless the model is in the cache. Better: set "
        "HF_TOKEN in the agent's environment.",
        secret=True,
    ),
    Field(
        GENERAL,
        "max_cuda_memory",
        "Max CUDA Memory (GiB)",
        "How much memory of each GPU all models together may use. The value may exceed the GPU: "
        "what does not fit on it lies in CPU RAM. Empty: what the GPU has. On a machine without a "
        "GPU it limits host memory.",
        Kind.FLOAT,
        minimum=0.05,
        maximum=100_000,
    ),
    Field(
        GENERAL,
        "cuda_memory_threshold",
        "CUDA Memory Manager Minimum Threshold",
        "In KiB. When a model is larger than the GPU, its tensors up to this size stay in GPU "
        "memory. Empty: -1 (none has to stay) on one GPU, 66000 on several.",
        Kind.INTEGER,
        minimum=-1,
        maximum=1 << 40,
    ),
    Field(
        GENERAL,
        "host",
        "Host",
        "Address to listen on. Empty: 0.0.0.0 under an agent or if an API key is set, else "
        "127.0.0.1.",
    ),
    Field(
        GENERAL,
        "allowed_hosts",
        "Allowed Hosts",
        "For an instance without an API key, which by itself answers only to the names of its own "
        "machine, such as localhost. Further names, separated by commas, by which callers may call "
        "it or whose pages may: models.example, models.example:8080, app://obsidian.md. With null, "
        "pages without an origin may too: webviews, but also frames of any website.",
    ),
    Field(
        GENERAL,
        "allow_private_urls",
        "Allow Private URLs",
        "Fetch models from http(s) addresses inside this network, too. Without it, an address that "
        "leads to this machine or to a private network is refused.",
        Kind.CHECKBOX,
        "false",
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
        "How long a request may wait for its model to be ready. After that it is refused with "
        "status 503.",
        Kind.FLOAT,
        "300",
        minimum=0,
        maximum=86400,
    ),
    Field(
        GENERAL,
        "body_limit",
        "Body Limit (MiB)",
        "How large the body of a request may be. Empty: 32 bytes for each token of the model's "
        "context, but at least 1 MiB (8 MiB for embeddings), and 64 MiB more for the media of a "
        "model with a projector. 100 MiB is llama-server's own limit.",
        Kind.FLOAT,
        minimum=0.1,
        maximum=100,
    ),
    Field(
        GENERAL,
        "drain_timeout",
        "Drain Timeout (Seconds)",
        "How long running requests may go on after the instance was told to stop.",
        Kind.FLOAT,
        "20",
        minimum=0,
        maximum=3600,
    ),
    Field(
        GENERAL,
        "llama_server",
        "llama-server",
        "Path of the llama-server to run. Empty: the one that LLAMA_SERVER names, else the one on "
        "the PATH, else /app/llama-server, else the one that `make install` built.",
    ),
    Field(
        GENERAL,
        "allow_remote_media",
        "Allow Remote Media",
        "Accept requests that name images or audio by URL; llama-server then fetches that URL.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "report_usage",
        "Report Token Usage",
        "Every minute, report the tokens that each model has read and written to the usage "
        "statistics of a ClearML Enterprise server, by the project that callers name in the "
        "header project.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "keep_prompts",
        "Keep Prompts",
        "Show the beginning (1 KiB) of what was asked in the page's list of the last 500 requests: "
        "to a named caller of its own requests, to whoever has the instance's key of all. It is "
        "kept in memory only.",
        Kind.CHECKBOX,
        "false",
    ),
    Field(
        GENERAL,
        "container_image",
        "Container Image",
        "Image in which an agent in docker mode runs the task. If it has no llama-server, "
        "llama.cpp's CUDA release is installed when the container starts (170 MB from GitHub, "
        "x86-64). If that is not possible, build an image from templates/Dockerfile and name it "
        "here.",
        default=CONTAINER_IMAGE,
    ),
    Field(
        GENERAL,
        "container_args",
        "Container Arguments",
        "Further arguments of `docker run`, such as --network host (so that callers reach the "
        "port) or -e HF_HOME=/models -v /models:/models.",
    ),
    Field(
        IDLE,
        "idle_time_limit",
        "Idle Time Limit (Hours)",
        "Shut down after this long without a request. 0: never. Empty: 24 hours under an agent, "
        "else never.",
        Kind.FLOAT,
        minimum=0,
        maximum=87600,
    ),
    Field(
        IDLE,
        "last_action_interval",
        "Last Action Report Interval (Seconds)",
        "How often the last activity is reported. After a request, the status stays active for as "
        "long.",
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
