from app.errors import RequestError


def test_request_errors_have_openais_types():
    types = {s: RequestError(s, "x").type for s in (400, 401, 404, 413, 429, 500, 502, 503)}
    assert types == {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        413: "invalid_request_error",
        429: "rate_limit_error",
        500: "server_error",
        502: "server_error",
        503: "unavailable_error",
    }
