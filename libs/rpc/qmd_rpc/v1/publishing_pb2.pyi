from qmd_rpc.v1 import evaluation_pb2 as _evaluation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishRequest(_message.Message):
    __slots__ = ("verdict", "model", "adapters", "data_manifest", "evaluation", "dry_run")
    class AdaptersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    DATA_MANIFEST_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    verdict: str
    model: str
    adapters: _containers.ScalarMap[str, str]
    data_manifest: str
    evaluation: str
    dry_run: bool
    def __init__(self, verdict: _Optional[str] = ..., model: _Optional[str] = ..., adapters: _Optional[_Mapping[str, str]] = ..., data_manifest: _Optional[str] = ..., evaluation: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("progress", "deployment", "changes")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    progress: _evaluation_pb2.Progress
    deployment: Deployment
    changes: Changes
    def __init__(self, progress: _Optional[_Union[_evaluation_pb2.Progress, _Mapping]] = ..., deployment: _Optional[_Union[Deployment, _Mapping]] = ..., changes: _Optional[_Union[Changes, _Mapping]] = ...) -> None: ...

class Changes(_message.Message):
    __slots__ = ("repositories",)
    REPOSITORIES_FIELD_NUMBER: _ClassVar[int]
    repositories: _containers.RepeatedCompositeFieldContainer[RepositoryChange]
    def __init__(self, repositories: _Optional[_Iterable[_Union[RepositoryChange, _Mapping]]] = ...) -> None: ...

class RepositoryChange(_message.Message):
    __slots__ = ("repository", "written", "removed", "unchanged")
    class WrittenEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    repository: str
    written: _containers.ScalarMap[str, int]
    removed: _containers.RepeatedScalarFieldContainer[str]
    unchanged: int
    def __init__(self, repository: _Optional[str] = ..., written: _Optional[_Mapping[str, int]] = ..., removed: _Optional[_Iterable[str]] = ..., unchanged: _Optional[int] = ...) -> None: ...

class GetDeployedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetDeployedResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("repository", "revision", "model", "gguf", "default_quantisation", "verdict_id")
    class GgufEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    GGUF_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_QUANTISATION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_ID_FIELD_NUMBER: _ClassVar[int]
    repository: str
    revision: str
    model: str
    gguf: _containers.ScalarMap[str, str]
    default_quantisation: str
    verdict_id: str
    def __init__(self, repository: _Optional[str] = ..., revision: _Optional[str] = ..., model: _Optional[str] = ..., gguf: _Optional[_Mapping[str, str]] = ..., default_quantisation: _Optional[str] = ..., verdict_id: _Optional[str] = ...) -> None: ...

class ListRevisionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRevisionsResponse(_message.Message):
    __slots__ = ("revisions",)
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[Revision]
    def __init__(self, revisions: _Optional[_Iterable[_Union[Revision, _Mapping]]] = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("revision", "parent", "created", "verdict_id", "restores", "reason", "repositories")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    VERDICT_ID_FIELD_NUMBER: _ClassVar[int]
    RESTORES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REPOSITORIES_FIELD_NUMBER: _ClassVar[int]
    revision: str
    parent: str
    created: str
    verdict_id: str
    restores: str
    reason: str
    repositories: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, revision: _Optional[str] = ..., parent: _Optional[str] = ..., created: _Optional[str] = ..., verdict_id: _Optional[str] = ..., restores: _Optional[str] = ..., reason: _Optional[str] = ..., repositories: _Optional[_Iterable[str]] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("repository", "revision", "reason")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    repository: str
    revision: str
    reason: str
    def __init__(self, repository: _Optional[str] = ..., revision: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

class CollectGarbageRequest(_message.Message):
    __slots__ = ("keep", "dry_run")
    KEEP_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    keep: int
    dry_run: bool
    def __init__(self, keep: _Optional[int] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CollectGarbageResponse(_message.Message):
    __slots__ = ("removed", "bytes", "note")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    removed: _containers.RepeatedScalarFieldContainer[str]
    bytes: int
    note: str
    def __init__(self, removed: _Optional[_Iterable[str]] = ..., bytes: _Optional[int] = ..., note: _Optional[str] = ...) -> None: ...
