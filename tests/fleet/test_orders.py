"""Orders on the state of the API stand-in, without the wire."""

import asyncio
import contextlib
import time
from email.utils import formatdate

import pytest

from app.errors import ConfigError
from app.fleet import doors as doors_of
from app.fleet import drafts
from app.fleet.config import Route
from app.fleet.orders import Orders
from app.fleet.standing import RouteState
from app.task.api import RefusedError
from app.task.checkout import Script
from app.task.launch import Launcher, describe
from app.task.sdk import NoAnswerError
from tests.clearml_api.state import ApiError, State
from tests.fleet.door import SECRET

FORM = {"Model/model": "p/r/m.gguf", "Model/endpoint_name": "m", "General/queue": "gpu"}
SCRIPT = Script("https://example.org/app.git", "main", "")


class ScriptedTask:
    """The door's task: requests go to `state`. `lost` are actions whose answers get lost, `refused`
    those that the server refuses, `late` those whose answers do not come in time; each takes
    `pause` seconds."""

    def __init__(self, state):
        self.state, self.lost, self.refused, self.pause = state, set(), set(), 0.0
        self.late = set()

    async def once(self, service, action, fields, deadline):
        await asyncio.sleep(self.pause)
        name = f"{service}.{action}"
        if name in self.refused:
            raise RefusedError(f"ClearML: {name}: not allowed", 403)
        try:
            found = self.state.act(name, dict(fields))
        except ApiError as error:
            raise RefusedError(f"ClearML: {name}: {error}", error.code) from None
        if name in self.late:
            await asyncio.sleep(60)
        if name in self.lost:
            raise NoAnswerError(f"ClearML: {name}: no answer")
        return found, formatdate(time.time())

    async def ask(self, *given):
        return (await self.once(*given))[0]


def doors(count=1):
    state = State()
    state.queues_create({"name": "gpu"})
    tasks = [ScriptedTask(state) for _ in range(count)]
    return state, tasks, [Orders(task, "a project", SCRIPT) for task in tasks]


def there(wanted):
    """Whether so many tasks are listed."""
    return lambda listed: len(listed) >= wanted


any_is_enough = there(1)


def queued(state):
    return [task for task in state.tasks.values() if task["status"] == "queued"]


ROUTE = Route("chat", form=FORM)


def test_a_form_is_ordered_once_and_the_lock_is_gone(run):
    async def scenario():
        state, _, (orders,) = doors()
        task = await orders.start(ROUTE, any_is_enough)
        (made,) = queued(state)
        assert made["id"] == task and made["hyperparams"]["General"]["gateway_route"]["value"] == (
            "chat"
        )
        assert await orders.start(ROUTE, any_is_enough) is None
        (listed,) = await orders.listed([ROUTE])
        assert (listed.task, listed.route, listed.version) == (task, "chat", ROUTE.version)
        assert [queue["name"] for queue in state.queues.values()] == ["gpu"]

    run(scenario)


def test_a_template_is_cloned(run):
    async def scenario():
        state, _, (orders,) = doors()
        template = state.new_task(hyperparams={"General": {"queue": {"value": "gpu"}}})
        route = Route("chat", template=template["id"])
        clone = state.tasks[await orders.start(route, any_is_enough)]
        assert clone["parent"] == template["id"] and clone["status"] == "queued"
        assert clone["hyperparams"]["General"]["gateway_route"]["value"] == "chat"

    run(scenario)


def test_many_doors_order_one_instance(run):
    async def scenario():
        state, tasks, every = doors(8)
        for task in tasks:
            task.pause = 0.002
        found = await asyncio.gather(*(orders.start(ROUTE, any_is_enough) for orders in every))
        assert len(queued(state)) == 1 == sum(each is not None for each in found)

    run(scenario)


def test_a_lock_whose_holder_is_gone_is_broken(run):
    async def scenario():
        state, _, (orders,) = doors()
        lock = state.queues_create({"name": "llamacpp-route a project chat"})["id"]
        assert await orders.start(ROUTE, any_is_enough) is None and lock in state.queues
        state.queues[lock]["created"] = "2020-01-01T00:00:00"
        assert await orders.start(ROUTE, any_is_enough) is None and lock not in state.queues
        assert await orders.start(ROUTE, any_is_enough) is not None

    run(scenario)


def test_without_the_right_to_make_queues_it_is_ordered_all_the_same(run, caplog):
    caplog.set_level("INFO", "app")

    async def scenario():
        state, (task,), (orders,) = doors()
        task.refused = {"queues.create"}
        assert await orders.start(ROUTE, any_is_enough) is not None
        assert "the doors agree by drafts" in caplog.text

    run(scenario)


@pytest.mark.parametrize("template", [False, True])
def test_many_doors_that_may_create_no_queue_order_one_instance(run, monkeypatch, template):
    """No door has a lock, and all order in the same moments. Result: one task, under its own name,
    and no draft."""
    monkeypatch.setattr(drafts, "PAUSE", 0.2)

    async def scenario():
        state, tasks, every = doors(8)
        for number, task in enumerate(tasks):
            task.refused, task.pause = {"queues.create"}, 0.004 + 0.001 * number
        route = ROUTE
        if template:
            made = state.new_task(hyperparams={"General": {"queue": {"value": "gpu"}}})
            route = Route("chat", template=made["id"])
        found = await asyncio.gather(*(orders.start(route, any_is_enough) for orders in every))
        (one,) = queued(state)
        assert [each for each in found if each] == [one["id"]] and one["name"] == "chat"
        assert len(state.tasks) == 1 + template

    run(scenario)


def test_a_draft_of_a_door_that_is_gone_is_in_nobodys_way_for_long(run, monkeypatch):
    monkeypatch.setattr(drafts, "PAUSE", 0.0)

    async def scenario():
        state, (task,), (orders,) = doors()
        task.refused = {"queues.create"}
        project = state.projects_create({"name": "a project"})["id"]
        left = state.new_task(project=project, name="chat (ordering)", id="0")
        assert await orders.start(ROUTE, any_is_enough) is None and list(state.tasks) == ["0"]
        left["created"] = "2020-01-01T00:00:00"
        assert await orders.start(ROUTE, any_is_enough) is not None

    run(scenario)


def test_an_order_that_is_given_up_leaves_no_draft(run):
    async def scenario():
        state, (task,), (orders,) = doors()
        task.pause = 0.02
        ordering = asyncio.ensure_future(orders.start(ROUTE, any_is_enough))
        while not state.tasks:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)  # its ID is known
        ordering.cancel()
        await asyncio.wait({ordering})
        assert ordering.cancelled() and state.tasks == {} and len(state.queues) == 1

    run(scenario)


@pytest.mark.parametrize("begun", [False, True])
def test_an_order_that_is_given_up_when_it_is_in_the_queue_is_taken_out_of_it(run, begun):
    """`begun`: an agent has just taken it. Result: then it stays."""

    async def scenario():
        state, (task,), (orders,) = doors()
        task.late = {"tasks.enqueue"}
        ordering = asyncio.ensure_future(orders.start(ROUTE, any_is_enough))
        while not queued(state):
            await asyncio.sleep(0.001)
        (made,) = queued(state)
        if begun:
            state.queues_get_next_task({"queue": made["execution"]["queue"]})
            state.tasks_started({"task": made["id"]})
        ordering.cancel()
        await asyncio.wait({ordering})
        assert ordering.cancelled() and list(state.tasks) == [made["id"]] * begun
        assert not any(each["entries"] for each in state.queues.values())

    run(scenario)


@pytest.mark.parametrize("page", [doors_of.PAGE, 1, 2, 4])
def test_the_other_doors_of_a_route(run, monkeypatch, page):
    monkeypatch.setattr(doors_of, "PAGE", page)

    async def scenario():
        state, _, (orders,) = doors()
        project = state.projects_create({"name": "a project"})["id"]
        made = [state.new_task(project=project, status="in_progress", id=n) for n in "abcd"]
        for task, told in zip(made, ("a chat", "b chat embed", "a other", ""), strict=True):
            task["runtime"]["llamacpp_door"] = told
        assert await orders.others("a") == {"chat", "embed"}
        assert await orders.others("b") == {"chat"}
        made[1]["last_update"] = "2020-01-01T00:00:00"
        assert await orders.others("a") == set()

    run(scenario)


@pytest.mark.parametrize("begun", [False, True])
def test_one_that_an_agent_has_taken_is_not_taken_back(run, begun):
    async def scenario():
        state, _, (orders,) = doors()
        task = await orders.start(ROUTE, any_is_enough)
        assert (await orders.place(task)).place == 1
        state.queues_get_next_task({"queue": state.tasks[task]["execution"]["queue"]})
        if begun:
            state.tasks_started({"task": task})
        with pytest.raises(RefusedError):
            await orders.take_back(task)
        assert state.tasks[task]["status"] == ("in_progress" if begun else "queued")

    run(scenario)


@pytest.mark.parametrize("taken", [False, True])
def test_one_that_is_in_no_queue_has_strayed_and_goes_unless_an_agent_begins_it(run, taken):
    async def scenario():
        state, _, (orders,) = doors()
        task, other = [await orders.start(ROUTE, there(wanted)) for wanted in (1, 2)]
        assert not await orders.strayed(task)
        state.queues_get_next_task({"queue": state.tasks[task]["execution"]["queue"]})
        assert await orders.strayed(task) and not await orders.strayed(other)
        if taken:
            state.tasks_started({"task": task})
        await orders.remove(task)
        assert list(state.tasks) == ([task, other] if taken else [other])

    run(scenario)


def test_an_agent_that_was_quicker_keeps_its_task(run):
    """The server has looked into the queue, and an agent takes the task then: nothing is removed,
    and nothing refused (`queue_bll.py` of the server 2.0.0)."""

    async def scenario():
        state, _, (orders,) = doors()
        task = await orders.start(ROUTE, any_is_enough)
        state.queues_remove_task = lambda fields: {"removed": 0}
        with pytest.raises(RefusedError):
            await orders.take_back(task)
        assert task in state.tasks

    run(scenario)


@pytest.mark.parametrize("version", ["1.15", "2.0"])
def test_one_that_is_taken_back_is_in_no_queue_and_gone(run, version):
    async def scenario():
        state, _, (orders,) = doors()
        taken, kept = [await orders.start(ROUTE, there(wanted)) for wanted in (1, 2)]
        if version == "1.15":  # it knows no `update_task_status`
            remove = state.queues_remove_task
            state.queues_remove_task = lambda f: remove({**f, "update_task_status": False})
        await orders.take_back(taken)
        assert list(state.tasks) == [kept] == [each["id"] for each in queued(state)]
        assert [len(each["entries"]) for each in state.queues.values()] == [1]

    run(scenario)


def test_a_draft_that_is_given_up_before_a_silent_server_goes_later(run):
    async def scenario():
        state, (task,), (orders,) = doors()
        task.pause = 0.02
        ordering = asyncio.ensure_future(orders.start(ROUTE, any_is_enough))
        while not state.tasks:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)  # its ID is known
        task.lost = {"tasks.get_all"}
        ordering.cancel()
        await asyncio.wait({ordering})
        assert ordering.cancelled() and len(state.tasks) == 1
        task.lost = set()
        await orders.listed([ROUTE])
        assert state.tasks == {}

    run(scenario)


@pytest.mark.parametrize("lost", ["queues.remove_task", "tasks.delete"])
def test_one_that_is_taken_back_leaves_nothing_where_the_answer_is_lost(run, lost):
    async def scenario():
        state, (task,), (orders,) = doors()
        name = await orders.start(ROUTE, any_is_enough)
        task.lost = {lost}
        with contextlib.suppress(NoAnswerError):
            await orders.take_back(name)
        task.lost = set()
        assert await orders.listed([ROUTE]) == [] and state.tasks == {}

    run(scenario)


def test_a_refused_order_leaves_no_draft(run):
    async def scenario():
        state, (task,), (orders,) = doors()
        task.refused = {"tasks.enqueue"}
        with pytest.raises(ConfigError, match="not allowed"):
            await orders.start(ROUTE, any_is_enough)
        assert state.tasks == {} and len(state.queues) == 1

    run(scenario)


def test_an_order_whose_answer_was_lost_is_found_by_the_next_listing(run):
    async def scenario():
        state, (task,), (orders,) = doors()
        task.lost = {"tasks.enqueue"}
        with pytest.raises(NoAnswerError):
            await orders.start(ROUTE, any_is_enough)
        task.lost = set()
        assert len(await orders.listed([ROUTE])) == 1
        assert await orders.start(ROUTE, any_is_enough) is None and len(queued(state)) == 1

    run(scenario)


@pytest.mark.parametrize("lost", ["tasks.edit_runtime", "tasks.enqueue", "queues.delete"])
def test_what_an_outage_left_is_tidied_up(run, lost):
    """The server goes away while an instance is ordered. Result: once it is back, neither draft nor
    lock is left, and one instance is ordered."""

    async def scenario():
        state, (task,), (orders,) = doors()
        enqueue = state.tasks_enqueue
        task.lost = {lost, "tasks.delete", "queues.delete"}
        if lost == "tasks.enqueue":  # it was lost on the way there
            state.tasks_enqueue = lambda fields: {}
        if lost == "queues.delete":
            state.queues_delete = lambda fields: {}
            await orders.start(ROUTE, any_is_enough)
        else:
            with pytest.raises(NoAnswerError):
                await orders.start(ROUTE, any_is_enough)
        task.lost = set()
        state.tasks_enqueue = enqueue
        vars(state).pop("queues_delete", None)
        await orders.listed([ROUTE])
        await orders.start(ROUTE, any_is_enough)
        assert [each["status"] for each in state.tasks.values()] == ["queued"]
        assert [queue["name"] for queue in state.queues.values()] == ["gpu"]

    run(scenario)


def test_all_pages_of_a_listing_are_read(run):
    async def scenario():
        state, _, (orders,) = doors()
        project = state.projects_create({"name": "a project"})["id"]
        for _ in range(1100):
            state.new_task(project=project, status="in_progress")
        task = await orders.start(ROUTE, any_is_enough)
        assert [each.task for each in await orders.listed([ROUTE])] == [task]

    run(scenario)


def test_what_is_wrong_with_an_order_is_told(run):
    async def scenario():
        _, (task,), (orders,) = doors()
        with pytest.raises(ConfigError, match="there is no queue 'nowhere'"):
            await orders.start(Route("chat", form=FORM, queue="nowhere"), any_is_enough)
        bare = Orders(task, "a project", None)
        with pytest.raises(ConfigError, match="--repo"):
            await bare.start(ROUTE, any_is_enough)

    run(scenario)


@pytest.mark.parametrize(
    ("secret", "count"), [(SECRET, 0), ("another of 16 characters", 1), ("", 1)]
)
def test_a_task_that_somebody_launches_counts_if_it_is_signed(run, secret, count):
    """`launch --route` enqueues a task, with or without the door's secret. Result: the door orders
    one beside it, unless it is signed."""

    async def scenario():
        state, (task,), _ = doors()
        orders = Orders(task, "a project", SCRIPT, SECRET)
        launcher = Launcher(task)
        described = describe("by hand", SCRIPT, {"General/gateway_route": "chat"})
        launched = await launcher.create(described, "a project")
        await launcher.join(launched, "chat", secret)
        await launcher.enqueue(launched, "gpu")
        route = RouteState(ROUTE, SECRET)
        suffices = route.one_more()
        listed = await orders.listed([ROUTE])
        route.update(listed)
        assert [each.task for each in listed] == [launched]
        assert route.standing().coming == 1 - count
        ordered = await orders.start(ROUTE, suffices)
        assert (ordered is not None) == bool(count) and len(queued(state)) == 1 + count

    run(scenario)


def test_the_routes_of_the_doors_task(run):
    async def scenario():
        state, _, (orders,) = doors()
        door = state.new_task()["id"]
        assert await orders.routes(door) == ""
        await orders.keep_routes(door, "[chat]\n")
        assert await orders.routes(door) == "[chat]\n"

    run(scenario)
