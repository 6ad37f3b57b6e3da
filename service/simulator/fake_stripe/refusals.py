"""What Stripe's API answers when it does not do what it was asked to, in Stripe's own words."""

from collections.abc import Mapping
from typing import Final

from service.simulator.objects import Object

INVALID_REQUEST: Final = "invalid_request_error"
API_ERROR: Final = "api_error"
IDEMPOTENCY_ERROR: Final = "idempotency_error"
_DOCUMENTATION: Final = "https://stripe.com/docs/error-codes/"


class Refusal(Exception):
    """An answer other than 2xx. `kind` is Stripe's error type; `code` and `param` are left out where there is none.

    `begun` is for what comes to light only when the work has begun: an Idempotency-Key repeats it, as it repeats a 500.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        begun: bool = False,
    ) -> None:
        super().__init__(message)
        self.begun = begun
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> Object:
        """The answer's JSON."""
        error: Object = {}
        if self.code is not None:
            error |= {"code": self.code, "doc_url": f"{_DOCUMENTATION}{self.code.replace('_', '-')}"}
        error["message"] = str(self)
        if self.param is not None:
            error["param"] = self.param
        return {"error": {**error, "type": self.kind}}


def no_such(kind: str, object_id: str, *, param: str = "id", other_mode: str | None = None) -> Refusal:
    """There is no such object. One that a path names is a 404, one that a parameter names a 400.

    `other_mode` is the mode that has one of this id.
    """
    message = f"No such {kind}: '{object_id}'"
    if other_mode is not None:
        mine = "test" if other_mode == "live" else "live"
        message += (
            f"; a similar object exists in {other_mode} mode, but a {mine} mode key was used to make this request."
        )
    return Refusal(404 if param == "id" else 400, message, code="resource_missing", param=param)


def unrecognized_url(method: str, path: str) -> Refusal:
    """Nothing is at this path, or not for this method."""
    return Refusal(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at"
        " https://support.stripe.com/.",
    )


def missing_param(name: str) -> Refusal:
    """A parameter that must be there is not."""
    return Refusal(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def unknown_param(name: str) -> Refusal:
    """A parameter that the operation does not know, or that cannot be changed any more."""
    return Refusal(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def invalid(param: str, message: str, *, code: str | None = None) -> Refusal:
    """A parameter's value is not what it must be."""
    return Refusal(400, message, code=code, param=param)
