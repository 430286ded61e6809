"""What the server knows, and its actions: `service.action` → a method on the request's fields."""

import json
import re
import time
import uuid

import jwt


class ApiError(Exception):
    """An answer other than 200, as the server's own: code, subcode, message."""

    def __init__(self, code, subcode, message):
        super().__init__(message)
        self.code, self.subcode = code, subcode


def now():
    seconds, part = divmod(time.time_ns(), 10**9)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{part // 1000:06d}+00:00", time.gmtime(seconds))


def new_id():
    return uuid.uuid4().hex


# Which status may follow which without `force` (apiserver/bll/task/utils.py); every status may
# follow itself, and then the message and the reason are replaced.
MAY_FOLLOW = {
    "created": ("queued", "in_progress"),
    "queued": ("created", "in_progress", "stopped"),
    "in_progress": ("stopped", "failed", "created", "completed"),
    "stopped": ("created", "failed", "queued", "in_progress", "published", "completed"),
    "failed": ("created", "stopped", "published", "queued"),
    "completed": ("published", "in_progress", "created"),
    "published": (),
}
RUNNING = ("created", "queued", "in_progress")  # whose runtime and hyperparameters may be edited
NESTED = ("script", "execution", "output")  # merged by tasks.edit; the rest is replaced
FRESH = ("id", "status", "status_message", "status_reason", "runtime", "last_iteration")
FRESH += ("created", "last_update")
SCRIPT = {"binary": "python", "repository": "", "requirements": {}, "diff": ""}
CLAIMS = {"identity": {"user": "u", "company": "c", "role": "user"}, "auth_type": "Bearer"}


class State:
    """`feature_set` "advanced" is an Enterprise server: it has `routes`, the App Gateway's, by
    name; `gateway` is the address that it gives out. `containers` is the Model Endpoints table,
    `gone` those that were unregistered. `edits_runtime`: whether it is of API 2.34 or later, which
    has tasks.edit_runtime. `lacking` are services that it does not have:
    like the real one it answers 404 then, as to every action that nobody knows."""

    def __init__(self, feature_set="basic", routes=None, edits_runtime=True, lacking=()):
        self.lacking = lacking
        self.feature_set, self.routes, self.gateway = feature_set, routes or {}, ""
        self.tasks, self.projects, self.queues, self.models = {}, {}, {}, {}
        self.workers, self.containers, self.gone = {}, {}, []
        self.events, self.usage = [], []
        self.edits_runtime = edits_runtime

    def act(self, name, fields):
        method = getattr(self, name.replace(".", "_"), None)
        lacking = {*self.lacking, *(() if self.edits_runtime else ("tasks.edit_runtime",))}
        if method is None or lacking & {name, name.partition(".")[0]}:
            raise ApiError(404, 0, f"Unable to find endpoint for name {name} and version 2.30")
        return method(fields)

    def task(self, fields):
        found = self.tasks.get(fields.get("task"))
        if found is None:
            raise ApiError(400, 101, "Invalid task id")
        return found

    def new_task(self, **fields):
        """A task as a form, a clone or the SDK makes it."""
        task = {
            "id": new_id(),
            "name": "task",
            "type": "inference",
            "status": "created",
            "status_message": "",
            "status_reason": "",
            "project": None,
            "created": now(),
            "last_update": now(),
            "last_iteration": 0,
            "comment": "",
            "system_tags": [],
            "tags": [],
            "hyperparams": {},
            "configuration": {},
            "runtime": {},
            "script": dict(SCRIPT),
            "execution": {"parameters": {}, "artifacts": [], "queue": None},
            "output": {"destination": ""},
            "models": {"input": [], "output": []},
            "container": {},
            "last_metrics": {},
            **{key: value for key, value in fields.items() if value is not None},
        }
        self.tasks[task["id"]] = task
        return task

    def add_events(self, events):
        """As the real server keeps them: an event takes the place of the one with the same task,
        iteration, metric, variant and file, and the task knows its last iteration. Times are the
        event's own. Lines of the console are all kept."""
        for event in events:
            same = next((e for e in self.events if identity(e) == identity(event)), None)
            if same is None or event.get("type") == "log":
                self.events.append(event)
            else:
                same.update(event)
            if task := self.tasks.get(event.get("task")):
                task["last_iteration"] = max(task["last_iteration"], event.get("iter") or 0)

    def events_get_task_log(self, fields):
        lines = [e for e in self.events if (e.get("type"), e["task"]) == ("log", fields["task"])]
        lines.sort(key=lambda event: event["timestamp"], reverse=fields.get("order") == "desc")
        return {"events": lines[: fields["batch_size"]]}

    # auth, users

    def auth_login(self, _):
        claims = {
            **CLAIMS,
            "exp": int(time.time()) + 86400,
            "api_version": "2.34" if self.edits_runtime else "2.32",
            "server_version": "2.3.0" if self.feature_set == "basic" else "3.26.0",
            "feature_set": self.feature_set,
        }
        return {"token": jwt.encode(claims, "k" * 32, algorithm="HS256")}

    def users_get_vaults(self, _):
        return {"vaults": []}

    # projects

    def projects_get_all(self, fields):
        name = (fields.get("name") or "").strip("^$").replace("\\", "")
        return {"projects": [p for p in self.projects.values() if name in ("", p["name"])]}

    def projects_create(self, fields):
        if any(p["name"] == fields["name"] for p in self.projects.values()):
            raise ApiError(400, 402, "Value combination already exists (unique field already set)")
        project = {"id": new_id(), "name": fields["name"], "default_output_destination": ""}
        self.projects[project["id"]] = project
        return {"id": project["id"]}

    def projects_get_by_id(self, fields):
        if fields.get("project") not in self.projects:
            raise ApiError(400, 401, "Invalid project id")
        return {"project": self.projects[fields["project"]]}

    # models

    def new_model(self, name, uri, system_tags=(), project=None):
        model = {
            "id": new_id(),
            "name": name,
            "uri": uri,
            "framework": "",
            "ready": False,
            "tags": [],
            "system_tags": list(system_tags),
            "labels": {},
            "design": {},
            "metadata": {},
            "task": None,
            "project": project,
        }
        self.models[model["id"]] = model
        return model["id"]

    def models_get_by_id(self, fields):
        if fields.get("model") not in self.models:
            raise ApiError(400, 201, "Invalid model id")
        return {"model": self.models[fields["model"]]}

    def models_get_all(self, fields):
        wanted = {key: fields[key] for key in ("id", "uri") if fields.get(key)}
        found = [m for m in self.models.values() if all(m[k] in wanted[k] for k in wanted)]
        if projects := fields.get("project"):
            found = [m for m in found if m.get("project") in projects]
        if any_of := fields.get("_any_"):
            matches = re.compile(any_of["pattern"], re.IGNORECASE).search
            found = [m for m in found if any(matches(m[key]) for key in any_of["fields"])]
        newest = "-created" in (fields.get("order_by") or ())
        return {"models": found[::-1] if newest else found}

    def models_create(self, fields):
        missing = next((name for name in ("uri", "name") if not fields.get(name)), None)
        if missing:
            raise ApiError(400, 12, f"Missing required field '{missing}'")
        model = self.new_model(fields["name"], fields["uri"])
        self.models[model] |= {"ready": True, **fields}
        return {"id": model, "created": True}

    def tasks_delete_models(self, fields):
        models = self.task(fields)["models"]
        for gone in fields["models"]:
            kept = [m for m in models[gone["type"]] if m["name"] != gone["name"]]
            models[gone["type"]] = kept
        return {"updated": 1}

    def tasks_add_or_update_model(self, fields):
        models = self.task(fields)["models"][fields["type"]]
        models[:] = [m for m in models if m["name"] != fields["name"]]
        models.append({"name": fields["name"], "model": fields["model"]})
        return {"updated": 1}

    # tasks

    def tasks_create(self, fields):
        if len(fields["name"]) < 3:
            raise ApiError(400, 12, "name: must have at least 3 characters")
        script = {**SCRIPT, **(fields.pop("script", None) or {})}
        return {"id": self.new_task(**fields, script=script)["id"]}

    def tasks_get_by_id(self, fields):
        return {"task": self.task(fields)}

    def tasks_get_all(self, fields):
        wanted = fields.get("id")
        found = [t for t in self.tasks.values() if not wanted or t["id"] in wanted]
        return {"tasks": [only(task, fields.get("only_fields")) for task in found]}

    def tasks_get_all_ex(self, fields):
        kept = {name: fields[name] for name in ("project", "status", "type") if fields.get(name)}
        found = [t for t in self.tasks.values() if all(t[k] in kept[k] for k in kept)]
        page, size = fields.get("page") or 0, fields.get("page_size") or 500
        found = found[page * size : (page + 1) * size]
        return {"tasks": [only(task, fields.get("only_fields")) for task in found]}

    def tasks_delete(self, fields):
        if self.task(fields)["status"] != "created" and not fields.get("force"):
            raise ApiError(400, 123, "Task cannot be deleted: due to status, use force=True")
        self._dequeue(self.task(fields))
        del self.tasks[fields["task"]]
        return {"deleted": True}

    def tasks_get_configurations(self, fields):
        found = []
        for key in fields["tasks"]:
            held, names = self.tasks[key]["configuration"], fields.get("names")
            items = [item for name, item in held.items() if not names or name in names]
            found.append({"task": key, "configuration": items})
        return {"configurations": found}

    def tasks_edit_configuration(self, fields):
        task = self.task(fields)
        for item in fields["configuration"]:
            task["configuration"][item["name"]] = item
        return {"updated": 1}

    def tasks_edit(self, fields):
        task = self.task(fields)
        for key, value in fields.items():
            if key == "output_dest":
                task["output"]["destination"] = value
            elif key in NESTED:
                task[key].update(value)
            elif key not in ("task", "force"):
                task[key] = value
        if "external_service" in task["system_tags"]:
            self._route(task)
        return self._changed(task, {})

    def tasks_edit_hyper_params(self, fields):
        """User properties may be edited in every status."""
        task = self.task(fields)
        if any(each["section"] != "properties" for each in fields["hyperparams"]):
            self._must_run(task)
        for parameter in fields["hyperparams"]:
            section = task["hyperparams"].setdefault(parameter["section"], {})
            section[parameter["name"]] = parameter
        return {"updated": 1}

    def tasks_edit_runtime(self, fields):
        """Sets and removes single keys; tasks.edit replaces all of them."""
        task = self.task(fields)
        self._must_run(task)
        task["runtime"].update(fields.get("add_or_update") or {})
        for key in fields.get("remove") or ():
            task["runtime"].pop(key, None)
        return {"updated": 1}

    def tasks_get_hyper_params(self, fields):
        found = []
        for key in fields["tasks"]:
            sections = self.tasks[key]["hyperparams"].values()
            flat = [parameter for section in sections for parameter in section.values()]
            found.append({"task": key, "hyperparams": flat})
        return {"params": found}

    def tasks_set_requirements(self, fields):
        self.task(fields)["script"]["requirements"] = fields["requirements"]
        return {"updated": 1, "fields": {}}

    def tasks_started(self, fields):
        changed = self._turn(fields, "in_progress")
        self.task(fields)["started"] = now()
        return {**changed, "started": 1}

    def tasks_completed(self, fields):
        return self._turn(fields, "completed")

    def tasks_stopped(self, fields):
        return self._turn(fields, "stopped")

    def tasks_failed(self, fields):
        return self._turn(fields, "failed")

    def tasks_stop(self, fields):
        """A task with a live worker is asked to stop, which its worker sees; others just stop."""
        task = self.task(fields)
        said = {"task": task["id"], "force": fields.get("force")}
        if task["status"] == "queued" or "development" in task["system_tags"]:
            self._dequeue(task)
            return self._turn({**said, "status_message": "Stopped by somebody"}, "stopped")
        return self._turn({**said, "status_message": "stopping"}, task["status"])

    def tasks_reset(self, fields):
        task = self.task(fields)
        self._dequeue(task)
        said = {"task": task["id"], "status_reason": "reset", "status_message": "reset"}
        task["execution"]["queue"] = None
        task["models"]["output"] = []
        task.update(runtime={}, last_iteration=0, last_metrics={})
        return self._turn({**said, "force": fields.get("force")}, "created")

    def tasks_clone(self, fields):
        kept = {k: v for k, v in self.task(fields).items() if k not in FRESH}
        kept["parent"] = fields["task"]
        clone = self.new_task(**json.loads(json.dumps(kept)))
        clone["name"] = fields.get("new_task_name") or clone["name"]
        clone["project"] = fields.get("new_task_project") or clone["project"]
        self._no_development(clone)
        return {"id": clone["id"]}

    def tasks_enqueue(self, fields):
        task = self.task(fields)
        named = {fields.get("queue"), fields.get("queue_name")}
        queue = next((q for q in self.queues.values() if named & {q["id"], q["name"]}), None)
        if queue is None:
            raise ApiError(400, 701, "Invalid queue")
        changed = self._turn({**fields, "task": task["id"]}, "queued")
        queue["entries"].append({"task": task["id"], "added": now()})
        task["execution"]["queue"] = queue["id"]
        self._no_development(task)
        return {**changed, "queued": 1}

    def _no_development(self, task):
        """Clone and enqueue take the tag of a task that a person's process runs: the server then
        asks the worker to stop, instead of writing `stopped` at once."""
        task["system_tags"] = [tag for tag in task["system_tags"] if tag != "development"]

    def tasks_dequeue(self, fields):
        """Sets back what runs, too, and refuses nothing (server 2.0.0, `task_bll.py`)."""
        task = self.task(fields)
        if task["status"] not in ("queued", "in_progress"):
            return {"updated": 0, "dequeued": 1}
        self._dequeue(task)
        status = fields.get("new_status") or "created"
        return {**self._changed(task, {"status": status}), "dequeued": 1}

    def _dequeue(self, task):
        for queue in self.queues.values():
            queue["entries"] = [e for e in queue["entries"] if e["task"] != task["id"]]

    # queues, workers

    def queues_get_all(self, fields):
        name = (fields.get("name") or "").strip("^$").replace("\\", "")
        return {"queues": [q for q in self.queues.values() if name in ("", q["name"])]}

    def queues_get_by_id(self, fields):
        if fields["queue"] not in self.queues:
            raise ApiError(400, 701, "Invalid queue id")
        return {"queue": self.queues[fields["queue"]]}

    def queues_create(self, fields):
        if any(q["name"] == fields["name"] for q in self.queues.values()):
            raise ApiError(400, 704, "Value combination already exists (unique field already set)")
        queue = {"id": new_id(), "name": fields["name"], "entries": [], "tags": []}
        queue["created"] = now()
        self.queues[queue["id"]] = queue
        return {"id": queue["id"]}

    def queues_delete(self, fields):
        if self.queues.pop(fields["queue"], None) is None:
            raise ApiError(400, 701, "Invalid queue id")
        return {"deleted": 1}

    def queues_remove_task(self, fields):
        queue = self.queues.get(fields["queue"])
        if queue is None or fields["task"] not in [each["task"] for each in queue["entries"]]:
            raise ApiError(400, 703, "Invalid queue id or task not in queue")
        task = self.task(fields)
        self._dequeue(task)
        if fields.get("update_task_status"):
            self._changed(task, {"status": "created"})
            task["execution"]["queue"] = None
        return {"removed": 1}

    def queues_get_next_task(self, fields):
        entries = self.queues[fields["queue"]]["entries"]
        return {"entry": entries.pop(0) if entries else None}

    def workers_register(self, fields):
        self.workers[fields["worker"]] = {"queues": fields.get("queues") or [], "reports": 0}
        return {}

    def workers_get_all(self, _):
        found = []
        for worker, told in self.workers.items():
            queues = [{"id": each} for each in told["queues"]]
            found.append({"id": worker, "queues": queues})
        return {"workers": found}

    def workers_unregister(self, fields):
        self.workers.pop(fields["worker"], None)
        return {}

    def workers_status_report(self, fields):
        worker = self.workers.setdefault(fields["worker"], {"queues": [], "reports": 0})
        worker["reports"] += 1
        return {}

    def workers_get_runtime_properties(self, _):
        return {"runtime_properties": []}

    # the Model Endpoints table

    def serving_register_container(self, fields):
        needed = ("container_id", "endpoint_name", "model_name")
        missing = next((name for name in needed if not fields.get(name)), None)
        if missing:
            raise ApiError(400, 12, f"Missing required field '{missing}'")
        self.containers[fields["container_id"]] = dict(fields)
        return {}

    def serving_container_status_report(self, fields):
        if not fields.get("endpoint_url"):
            raise ApiError(400, 12, "Missing required field 'endpoint_url'")
        self.containers.setdefault(fields["container_id"], {}).update(fields)
        return {}

    def serving_get_endpoints(self, _):
        return {"endpoints": []}

    def serving_unregister_container(self, fields):
        self.containers.pop(fields["container_id"], None)
        self.gone.append(fields["container_id"])
        return {}

    # the App Gateway

    def _route(self, task):
        """The gateway sees the system tag, and gives the task an address."""
        runtime = task["runtime"]
        if self.gateway and runtime.get("_PORT") and not runtime.get("endpoint"):
            static = runtime.get("_ROUTER_ENDPOINT_MODE_PARAM")
            runtime["endpoint"] = f"{self.gateway}/{static or 'service/' + task['id']}"

    def routers_get_routes(self, fields):
        if self.feature_set == "basic":
            raise ApiError(400, 1, "unknown endpoint routers.get_routes")
        name = fields["name"].strip("^$")
        return {"routes": [r for r in self.routes.values() if r["name"] == name]}

    def routers_report_llm_usage(self, fields):
        """Nobody of us has an Enterprise server: this is as clearml-agent 4 calls it."""
        if self.feature_set == "basic":
            raise ApiError(404, 0, "Unable to find endpoint for name routers.report_llm_usage")
        self.usage += fields["usage"]
        return {}

    def tasks_ping(self, fields):
        self.task(fields)["last_update"] = now()
        return {}

    def _turn(self, fields, status):
        """As its ChangeStatusRequest does: reason and message are replaced, by "" as well."""
        task = self.task(fields)
        allowed = status == task["status"] or status in MAY_FOLLOW[task["status"]]
        if not allowed and not fields.get("force"):
            raise ApiError(400, 110, f"Invalid status change: {task['status']} to {status}")
        said = {key: fields.get(key) or "" for key in ("status_reason", "status_message")}
        return self._changed(task, {"status": status, **said})

    def _must_run(self, task):
        if task["status"] not in RUNNING:
            raise ApiError(400, 110, f"Invalid task status: {task['status']}")

    def _changed(self, task, fields):
        task.update(fields, last_update=now())
        return {"updated": 1, "fields": fields}


def identity(event):
    return [event.get(key) for key in ("type", "task", "iter", "metric", "variant", "key")]


def only(task, names):
    """The named fields; "a.b" stays nested."""
    if not names:
        return task
    found = {"id": task["id"]}
    for name in names:
        *path, last = name.split(".")
        source, target = task, found
        for part in path:
            source = source.get(part) or {}
            target = target.setdefault(part, {})
        if last in source:
            target[last] = source[last]
    return found
