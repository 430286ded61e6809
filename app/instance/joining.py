"""An instance joins the route of a door: its task tells where it is and to which route it belongs.

Servers with an App Gateway have static routes of their own. Elsewhere General/gateway_route names a
route of `python -m app fleet`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from app.form.settings import GeneralSettings
from app.gateway.trust import SECRET_VARIABLE, Membership
from app.instance.callers import Callers, secret_of
from app.task.clearml_task import ClearMLTask
from app.task.live import ADDRESS, ROUTE, belongs
from app.task.route import FIELD

logger = logging.getLogger(__name__)


async def join(
    task: ClearMLTask,
    general: GeneralSettings,
    environment: Mapping[str, str],
    address: str,
    callers: Callers,
) -> Membership | None:
    """None where there is no route of a door to join. Raises ClearMLError."""
    route = general.gateway_route
    if not route or callers.rules.routed:
        return None
    if task.offline:
        logger.warning("%s is ignored: a route needs a ClearML server", FIELD)
        return None
    secret = secret_of(environment)
    if not callers.rules.keys:
        what = "a door has no key for this instance"
        logger.warning("%s is ignored: %s: set %s here and there", FIELD, what, SECRET_VARIABLE)
        return None
    member = Membership(route, task.task_id, address, secret)
    await task.set_runtime({ROUTE: belongs(route, task.task_id), ADDRESS: address})
    logger.info("in the route %s of `python -m app fleet`, at %s", route, address)
    if not secret:
        logger.warning(
            "%s is not set: every user of this ClearML server can read the instance's key, and "
            "lead its callers elsewhere",
            SECRET_VARIABLE,
        )
    return member
