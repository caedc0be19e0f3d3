"""What the service accepts: a request outside these limits is the caller's mistake and is named as one."""

from qmd_rpc.decoding import RequestError
from qmd_rpc.v1 import reward_pb2

MAX_QUERY_CHARACTERS = 2_000
MAX_EXPANSION_BYTES = 16 * 1024
MAX_BATCH = 4_096
MAX_SEARCHED_LINES = 256


def check_request(request: reward_pb2.ScoreRequest | reward_pb2.ScoreRetrievalRequest, where: str = "") -> None:
    """Raises RequestError with the field that breaks a limit, the limit and the value.

    where: what stands before the field's name, such as "requests[3].".
    """
    if not request.query:
        raise RequestError(f"{where}query: is empty; wants 1 to {MAX_QUERY_CHARACTERS:,} characters")
    if len(request.query) > MAX_QUERY_CHARACTERS:
        characters = len(request.query)
        raise RequestError(f"{where}query: has {characters:,} characters; wants 1 to {MAX_QUERY_CHARACTERS:,}")
    expansion_bytes = len(request.expansion.encode())
    if expansion_bytes > MAX_EXPANSION_BYTES:
        raise RequestError(
            f"{where}expansion: has {expansion_bytes:,} bytes of UTF-8; wants at most {MAX_EXPANSION_BYTES:,}"
        )
    for field, text in (("query", request.query), ("expansion", request.expansion)):
        if "\0" in text:
            position = text.index("\0")
            raise RequestError(f"{where}{field}: has a NUL at character {position}; wants text without NUL")


def check_retrieval(request: reward_pb2.ScoreRetrievalRequest) -> None:
    """As `check_request`."""
    check_request(request)
    lines = request.expansion.count("\n") + 1
    if lines > MAX_SEARCHED_LINES:
        raise RequestError(f"expansion: has {lines:,} lines; wants at most {MAX_SEARCHED_LINES}")
