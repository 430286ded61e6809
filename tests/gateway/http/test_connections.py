from app.gateway.http.connections import AT_ONCE, MOST_TURNED_AWAY, Connections
from app.gateway.http.limits import Limits


class Peer:
    busy = False
    broken = False

    def __init__(self, address, idle_since=0.0):
        self.address, self.idle_since = address, idle_since

    def abort(self):
        self.broken = True

    def hurry(self, now):
        pass


def filled(limits, peers):
    connections = Connections(limits)
    assert [connections.admit(peer) for peer in peers] == [None] * len(peers)
    return connections


def test_the_address_with_most_connections_gives_way_first():
    many = [Peer("10.0.0.1", 50.0) for _ in range(AT_ONCE)]
    few = [Peer("10.0.0.2", 1.0), Peer("10.0.0.3", 2.0)]
    connections = filled(Limits(connections=AT_ONCE + 2), [*few, *many])
    assert connections.admit(Peer("10.0.0.4")) is None
    assert all(peer.broken for peer in many) and not any(peer.broken for peer in few)


def test_of_one_address_those_idle_longest_give_way_and_many_together():
    peers = [Peer("a", float(age)) for age in range(AT_ONCE + 3)]
    connections = filled(Limits(of_one_address=AT_ONCE + 3), peers)
    assert connections.admit(Peer("a")) is None
    assert [peer.broken for peer in peers] == [True] * AT_ONCE + [False] * 3
    connections.forget(peers[0])  # the transport says so later
    assert sum(1 for _ in connections) == 4


def test_who_is_turned_away_counts_for_no_place_and_is_bounded():
    placed = Peer("a", None)
    connections = filled(Limits(connections=1), [placed])
    away = [Peer("b") for _ in range(MOST_TURNED_AWAY + 1)]
    assert {connections.admit(peer).status for peer in away} == {503}
    assert away[0].broken and not away[1].broken
    connections.forget(placed)
    assert connections.admit(Peer("c")) is None


def test_nobody_is_left_once_all_are_forgotten():
    peers = [Peer("a"), Peer("b", None)]
    connections = filled(Limits(), peers)
    for peer in [*peers, Peer("c")]:
        connections.forget(peer)
    assert not connections and list(connections) == []
