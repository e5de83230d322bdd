"""The FastAPI application of the fake Hub: routes, errors as headers, ordered faults, log of requests."""

import asyncio
import time
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.servers.hub import collection_routes, file_routes, repository_routes, xet_routes
from tests.servers.hub.context import CurrentHub, Hub, LoggedRequest
from tests.servers.hub.errors import HubError

# Collections first: their addresses look like those of a repository.
ROUTERS = (collection_routes.router, repository_routes.router, file_routes.router, xet_routes.router)
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def create_app(hub: Hub) -> ASGIApp:
    """The application of one server, with what happens on the wire around it."""
    app = FastAPI(openapi_url=None, dependencies=[Depends(apply_faults)])
    app.state.hub = hub
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/{path:path}", not_emulated, methods=ALL_METHODS, name="unknown")
    app.add_exception_handler(HubError, answer_refusal)
    app.add_exception_handler(RequestValidationError, answer_invalid_body)
    app.add_exception_handler(ClientDisconnect, answer_nobody)
    app.add_exception_handler(Exception, answer_crash)
    hub.faults.routes = frozenset(str(getattr(route, "name", "")) for router in ROUTERS for route in router.routes)
    return Wire(app, hub)


class Wire:
    """Routes on the path as sent, loses answers where a fault says so, and logs.

    Starlette unquotes a path before it looks for the route, which would tear `branch/with%2Fslash` apart.
    """

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        self._app = app
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        log = self._hub.requests
        lost = False

        async def send_unless_lost(message: Message) -> None:
            nonlocal lost
            if message["type"] != "http.response.start":
                if not lost:
                    await send(message)
                return
            route = _route_name(scope)
            rule = self._hub.faults.take("lose_answer", route)
            lost = rule is not None
            status = rule.status if rule else int(message["status"])
            # Logged before it is sent, so that a client that has the answer finds the entry.
            log.append(LoggedRequest(scope["method"], scope["path"], status, route))
            if status is not None and lost:
                await JSONResponse({"error": "The answer was lost"}, status)(scope, receive, send)
            else:  # when lost, a start without its body makes uvicorn cut the connection
                await send(message)

        self._hub.under_way += 1
        try:
            await self._app(scope, receive, send_unless_lost)
        finally:
            self._hub.under_way -= 1


async def apply_faults(request: Request, hub: CurrentHub) -> None:
    """Delays or refuses a request if a test ordered that.

    The body is read before a refusal, else the client may see a broken pipe in place of the status.
    """
    route = _route_name(request.scope)
    if delay := hub.faults.take("delay", route):
        end = time.monotonic() + delay.seconds
        while time.monotonic() < end and delay.held:
            await asyncio.sleep(0.01)
    if hold := hub.faults.take("hold", route):
        while hold.held:
            await asyncio.sleep(0.01)
    if any(rule is not None and rule not in hub.faults.rules for rule in (delay, hold)):
        raise HubError(503, "The rules were dropped while this waited")
    if failure := hub.faults.take("fail", route):
        async for _ in request.stream():
            pass
        raise HubError(failure.status or 503, failure.message or f"Ordered failure of {route}")


async def not_emulated(request: Request) -> None:
    """Makes a call that this server does not know loud."""
    raise HubError(501, f"Not emulated: {request.method} {request.scope['path']}")


async def answer_refusal(request: Request, error: Exception) -> JSONResponse:
    """A refusal as the Hub words it, in headers and body."""
    assert isinstance(error, HubError)
    headers = {**error.headers, "X-Error-Message": quote(error.message, safe=" !\"#$&'()*+,/:;=?@[]{}<>|^`")}
    if error.code is not None:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, error.status, headers)


async def answer_invalid_body(request: Request, error: Exception) -> JSONResponse:
    """A body or query that does not fit is the client's fault, and 400 on the Hub."""
    return await answer_refusal(request, HubError(400, str(error).replace("\n", " ")))


async def answer_nobody(request: Request, error: Exception) -> JSONResponse:
    """A client that went away in the middle of an upload; 499 is what the log shows, as in nginx."""
    return JSONResponse({"error": "The client closed the connection"}, 499)


async def answer_crash(request: Request, error: Exception) -> JSONResponse:
    """An error in this server; JSON, for the client parses some answers before it looks at their status."""
    return JSONResponse({"error": f"The fake Hub itself failed: {error!r}"}, 500)


def _route_name(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "name", "unknown"))
