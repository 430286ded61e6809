"""The policy on one device with room for one model, beside what other programs do there, and beside
the best that anybody could have done who knew all requests beforehand."""

import random
import statistics
from dataclasses import dataclass

from app.memory.turns import Stage, Turn, Turns, assign
from tests.simulator import Sim

MODELS = "abc"
ROOM = 10


@dataclass(frozen=True)
class Ask:
    """A caller's next request: it takes `service` seconds once it has begun, and its caller comes
    again `think` seconds after it."""

    model: str
    service: float
    think: float


def first_come(*, drains):
    """A policy like that of llama-swap and of llama-server's router mode: whoever waits longest is
    next, together with all that wait for the same model. While others wait, a model in memory
    takes new requests as long as it has any; with `drains` it takes none."""

    def policy(standings, _budget, _now, _bound):
        waiting = [m for m in standings if m.stage is Stage.AWAY and m.waiting_since is not None]
        if not waiting:
            return Turns()
        head = min(waiting, key=lambda model: model.waiting_since)
        there = [model for model in standings if model.stage is not Stage.AWAY]
        if not there:
            return Turns(begin=(Turn(head.name, (), (), ""),))
        (resident,) = there[:1]
        asked = resident.waiting_since
        before = asked is not None and asked <= head.waiting_since
        if resident.stage is not Stage.HERE or before:
            return Turns()
        if resident.leased:
            return Turns(draining=frozenset((resident.name,) if drains else ()))
        return Turns(begin=(Turn(head.name, (resident.name,), (resident.name,), ""),))

    return policy


POLICIES = {
    "ours": assign,
    "first come, drains": first_come(drains=True),
    "first come, keeps": first_come(drains=False),
}


def random_callers(seed):
    """What a switch costs, and the requests of two or three callers, twelve in all: who go round
    the models, jump among them, stay with one (with a pause to think, or without), or mostly."""
    dice = random.Random(seed)
    cost, service = dice.choice([0.2, 0.5, 1, 2, 10, 30]), dice.choice([0.1, 0.3, 1, 3])
    pauses = [
        lambda: 0.0,
        lambda: dice.uniform(0.5, 1.5),
        lambda: dice.expovariate(1),
        lambda: dice.expovariate(5),
    ]
    several = dice.randint(2, 3)

    def caller():
        own, think = dice.randrange(len(MODELS)), dice.choice(pauses)
        way = dice.choice(["round", "jumps", "stays", "mostly stays"])
        for number in range(12 // several):
            away = way == "jumps" or (way == "mostly stays" and dice.random() < 0.2)
            at = dice.randrange(len(MODELS)) if away else own + number * (way == "round")
            model = MODELS[at % len(MODELS)]
            yield Ask(model, service * dice.uniform(0.5, 1.5), think())

    return cost, [list(caller()) for _ in range(several)]


@dataclass
class Played:
    """`total`: seconds until the last request is served; `waits`: of each, until it begins."""

    total: float
    waits: list
    switches: int


def play(policy, cost, sequences):
    sim = Sim(dict.fromkeys(MODELS, ROOM), ROOM, cost / 2, policy=policy)
    ended = []

    def ask(sequence):
        found = next(sequence, None)
        if found is not None:
            sim.request(found.model, found.service, lambda: served(found, sequence))

    def served(found, sequence):
        ended.append(sim.now)
        sim.at(sim.now + found.think, lambda: ask(sequence))

    for sequence in map(iter, sequences):
        sim.at(0.0, lambda sequence=sequence: ask(sequence))
    sim.run()
    assert len(sim.done) == sum(map(len, sequences))
    return Played(max(ended), [waited for _, waited in sim.done], sim.switches)


@dataclass(frozen=True)
class Visit:
    """Where a schedule has come to: its model is `here` since then, all that it has served ends by
    `end`, and the callers' next requests come at `due`."""

    here: float
    end: float
    due: tuple

    def beats(self, other):
        mine, its = (self.here, self.end, *self.due), (other.here, other.end, *other.due)
        return all(a <= b + 1e-9 for a, b in zip(mine, its, strict=True))


def best_total(cost, sequences):
    """The least `total` of all schedules of these callers, known beforehand: the models may come
    before anybody asks for them. By dynamic programming over which model is there and how many
    requests of each caller are served; of what leads to the same, only what no other beats."""
    found = {(None, (0,) * len(sequences)): [Visit(0.0, 0.0, (0.0,) * len(sequences))]}
    for _ in range(sum(map(len, sequences))):
        further = {}
        for (model, served), visits in found.items():
            for caller, sequence in enumerate(sequences):
                if served[caller] == len(sequence):
                    continue
                asked = sequence[served[caller]]
                upto = (*served[:caller], served[caller] + 1, *served[caller + 1 :])
                kept = further.setdefault((asked.model, upto), [])
                switch = 0.0 if asked.model == model else cost if model else cost / 2
                for visit in visits:
                    _keep(kept, _served(visit, asked, caller, switch))
        found = further
    return min(visit.end for visits in found.values() for visit in visits)


def _served(visit, asked, caller, switch):
    here = visit.end + switch if switch else visit.here
    end = max(here, visit.due[caller]) + asked.service
    due = (*visit.due[:caller], end + asked.think, *visit.due[caller + 1 :])
    return Visit(here, max(visit.end, end), due)


def _keep(kept, visit):
    if not any(other.beats(visit) for other in kept):
        kept[:] = [other for other in kept if not visit.beats(other)]
        kept.append(visit)


def compare(seeds):
    """For each policy its deciles, over the seeds: of `total` as a multiple of the best in
    hindsight, and of the mean wait as a multiple of what a switch costs."""
    totals = {name: [] for name in POLICIES}
    waits = {name: [] for name in POLICIES}
    for seed in seeds:
        cost, sequences = random_callers(seed)
        best = best_total(cost, sequences)
        for name, policy in POLICIES.items():
            found = play(policy, cost, sequences)
            assert found.total >= best - 1e-6, seed
            totals[name].append(found.total / best)
            waits[name].append(statistics.mean(found.waits) / cost)
    return tuple(
        {name: statistics.quantiles(values, n=10) for name, values in each.items()}
        for each in (totals, waits)
    )
