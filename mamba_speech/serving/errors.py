"""What the service refuses: a status, a code for programs, and a sentence for people."""

from starlette.exceptions import HTTPException


class ServiceError(HTTPException):
    """A request that gets no answer.

    Arguments
    ---------
    status : int
        HTTP status.
    code : str
        Name of the fault, such as ``queue_full``.
    message : str
        A sentence: what is wrong, and what to do.
    headers : dict of str to str, optional
    """

    def __init__(self, status, code, message, headers=None):
        super().__init__(status, message, headers or {})
        self.status, self.code, self.message = status, code, message

    def body(self):
        """The JSON of the answer; OpenAI's clients read the same keys."""
        error = {"code": self.code, "message": self.message, "type": "invalid_request_error"}
        if self.status >= 500:
            error["type"] = "server_error"
        return {"error": error}


def unusable(message):
    """The error of a recording that is no usable audio."""
    return ServiceError(422, "unusable_audio", message)
