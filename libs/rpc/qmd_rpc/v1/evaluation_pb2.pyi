from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluateRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("progress", "figures_json")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_JSON_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    figures_json: str
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., figures_json: _Optional[str] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("candidate", "reference", "deployed_revision", "output")
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYED_REVISION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    candidate: str
    reference: str
    deployed_revision: str
    output: str
    def __init__(self, candidate: _Optional[str] = ..., reference: _Optional[str] = ..., deployed_revision: _Optional[str] = ..., output: _Optional[str] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("progress", "signed_verdict_json")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SIGNED_VERDICT_JSON_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    signed_verdict_json: str
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., signed_verdict_json: _Optional[str] = ...) -> None: ...

class GetVerdictRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetVerdictResponse(_message.Message):
    __slots__ = ("signed_verdict_json",)
    SIGNED_VERDICT_JSON_FIELD_NUMBER: _ClassVar[int]
    signed_verdict_json: str
    def __init__(self, signed_verdict_json: _Optional[str] = ...) -> None: ...

class ListVerdictsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListVerdictsResponse(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[VerdictSummary]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[VerdictSummary, _Mapping]]] = ...) -> None: ...

class VerdictSummary(_message.Message):
    __slots__ = ("id", "created", "outcome", "candidate", "reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    created: str
    outcome: str
    candidate: str
    reason: str
    def __init__(self, id: _Optional[str] = ..., created: _Optional[str] = ..., outcome: _Optional[str] = ..., candidate: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("task", "done", "total")
    TASK_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    task: str
    done: int
    total: int
    def __init__(self, task: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...
