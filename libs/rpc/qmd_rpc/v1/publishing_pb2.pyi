from qmd_rpc.v1 import evaluation_pb2 as _evaluation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishRequest(_message.Message):
    __slots__ = ("verdict", "model", "adapters", "data_manifest", "evaluation")
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
    verdict: str
    model: str
    adapters: _containers.ScalarMap[str, str]
    data_manifest: str
    evaluation: str
    def __init__(self, verdict: _Optional[str] = ..., model: _Optional[str] = ..., adapters: _Optional[_Mapping[str, str]] = ..., data_manifest: _Optional[str] = ..., evaluation: _Optional[str] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("progress", "deployment")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    progress: _evaluation_pb2.Progress
    deployment: Deployment
    def __init__(self, progress: _Optional[_Union[_evaluation_pb2.Progress, _Mapping]] = ..., deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

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
