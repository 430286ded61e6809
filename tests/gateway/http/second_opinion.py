"""What h11 makes of the same bytes, as a server that answers every request with 404."""

from typing import NamedTuple

import h11


class Opinion(NamedTuple):
    refuses: bool
    requests: tuple[tuple[str, str, tuple, bytes], ...]  # method, target, headers, body


def of(data):
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    requests = []
    try:
        while _next(connection, requests):
            pass
    except h11.RemoteProtocolError:
        return Opinion(True, _whole(requests))
    return Opinion(False, _whole(requests))


def _next(connection, requests):
    event = connection.next_event()
    if event is h11.PAUSED and connection.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
        connection.start_next_cycle()
        return True
    if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
        return False
    if isinstance(event, h11.Request):
        method, target = event.method.decode(), event.target.decode()
        requests.append([method, target, tuple(event.headers), b"", False])
    elif isinstance(event, h11.Data):
        requests[-1][3] += bytes(event.data)
    elif isinstance(event, h11.EndOfMessage):
        requests[-1][4] = True
        connection.send(h11.Response(status_code=404, headers=[("content-length", "0")]))
        connection.send(h11.EndOfMessage())
    return True


def _whole(requests):
    return tuple(tuple(request[:4]) for request in requests if request[4])
