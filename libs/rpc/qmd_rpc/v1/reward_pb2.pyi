from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Rating(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RATING_UNSPECIFIED: _ClassVar[Rating]
    RATING_FAILED: _ClassVar[Rating]
    RATING_POOR: _ClassVar[Rating]
    RATING_ACCEPTABLE: _ClassVar[Rating]
    RATING_GOOD: _ClassVar[Rating]
    RATING_EXCELLENT: _ClassVar[Rating]

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    KIND_LEX: _ClassVar[Kind]
    KIND_VEC: _ClassVar[Kind]
    KIND_HYDE: _ClassVar[Kind]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_CHAT_MARKER_LEFT: _ClassVar[Reason]
    REASON_LINE_WITHOUT_KIND: _ClassVar[Reason]
    REASON_WANTED_KIND_MISSING: _ClassVar[Reason]
    REASON_KIND_MISSING: _ClassVar[Reason]
    REASON_UNWANTED_KIND: _ClassVar[Reason]
    REASON_NOT_COMPLEMENTARY: _ClassVar[Reason]
    REASON_LINES_ALIKE: _ClassVar[Reason]
    REASON_QUERY_REPEATED: _ClassVar[Reason]
    REASON_PERCENTAGE_CAPPED: _ClassVar[Reason]
    REASON_HYDE_LENGTH: _ClassVar[Reason]
    REASON_LEX_LONGER_THAN_VEC: _ClassVar[Reason]
    REASON_KEY_TERMS_LOST: _ClassVar[Reason]
    REASON_FILLER: _ClassVar[Reason]
    REASON_VEC_TOO_SHORT: _ClassVar[Reason]
    REASON_NO_LINE_WITH_ENTITY: _ClassVar[Reason]
    REASON_ENTITIES_LOST: _ClassVar[Reason]
    REASON_GENERIC_LINES: _ClassVar[Reason]
RATING_UNSPECIFIED: Rating
RATING_FAILED: Rating
RATING_POOR: Rating
RATING_ACCEPTABLE: Rating
RATING_GOOD: Rating
RATING_EXCELLENT: Rating
KIND_UNSPECIFIED: Kind
KIND_LEX: Kind
KIND_VEC: Kind
KIND_HYDE: Kind
REASON_UNSPECIFIED: Reason
REASON_CHAT_MARKER_LEFT: Reason
REASON_LINE_WITHOUT_KIND: Reason
REASON_WANTED_KIND_MISSING: Reason
REASON_KIND_MISSING: Reason
REASON_UNWANTED_KIND: Reason
REASON_NOT_COMPLEMENTARY: Reason
REASON_LINES_ALIKE: Reason
REASON_QUERY_REPEATED: Reason
REASON_PERCENTAGE_CAPPED: Reason
REASON_HYDE_LENGTH: Reason
REASON_LEX_LONGER_THAN_VEC: Reason
REASON_KEY_TERMS_LOST: Reason
REASON_FILLER: Reason
REASON_VEC_TOO_SHORT: Reason
REASON_NO_LINE_WITH_ENTITY: Reason
REASON_ENTITIES_LOST: Reason
REASON_GENERIC_LINES: Reason

class ScoreRequest(_message.Message):
    __slots__ = ("query", "expansion")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    EXPANSION_FIELD_NUMBER: _ClassVar[int]
    query: str
    expansion: str
    def __init__(self, query: _Optional[str] = ..., expansion: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("score",)
    SCORE_FIELD_NUMBER: _ClassVar[int]
    score: Score
    def __init__(self, score: _Optional[_Union[Score, _Mapping]] = ...) -> None: ...

class ScoreBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[ScoreRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[ScoreRequest, _Mapping]]] = ...) -> None: ...

class ScoreBatchResponse(_message.Message):
    __slots__ = ("scores",)
    SCORES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    def __init__(self, scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ...) -> None: ...

class ScoreStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: ScoreRequest
    def __init__(self, request: _Optional[_Union[ScoreRequest, _Mapping]] = ...) -> None: ...

class ScoreStreamResponse(_message.Message):
    __slots__ = ("score",)
    SCORE_FIELD_NUMBER: _ClassVar[int]
    score: Score
    def __init__(self, score: _Optional[_Union[Score, _Mapping]] = ...) -> None: ...

class ScoreRetrievalRequest(_message.Message):
    __slots__ = ("query", "expansion", "collection")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    EXPANSION_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    query: str
    expansion: str
    collection: str
    def __init__(self, query: _Optional[str] = ..., expansion: _Optional[str] = ..., collection: _Optional[str] = ...) -> None: ...

class ScoreRetrievalResponse(_message.Message):
    __slots__ = ("score",)
    SCORE_FIELD_NUMBER: _ClassVar[int]
    score: RetrievalScore
    def __init__(self, score: _Optional[_Union[RetrievalScore, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[Collection]
    def __init__(self, collections: _Optional[_Iterable[_Union[Collection, _Mapping]]] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("rubric_version", "qmd_contract", "build")
    RUBRIC_VERSION_FIELD_NUMBER: _ClassVar[int]
    QMD_CONTRACT_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    rubric_version: str
    qmd_contract: str
    build: str
    def __init__(self, rubric_version: _Optional[str] = ..., qmd_contract: _Optional[str] = ..., build: _Optional[str] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("score", "format", "diversity", "hyde", "quality", "entity", "think_bonus", "total", "max_possible", "percentage", "rating", "only_mode", "entities", "reasons")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    HYDE_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    THINK_BONUS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    MAX_POSSIBLE_FIELD_NUMBER: _ClassVar[int]
    PERCENTAGE_FIELD_NUMBER: _ClassVar[int]
    RATING_FIELD_NUMBER: _ClassVar[int]
    ONLY_MODE_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    score: float
    format: int
    diversity: int
    hyde: int
    quality: int
    entity: int
    think_bonus: int
    total: int
    max_possible: int
    percentage: float
    rating: Rating
    only_mode: str
    entities: _containers.RepeatedScalarFieldContainer[str]
    reasons: _containers.RepeatedCompositeFieldContainer[Deduction]
    def __init__(self, score: _Optional[float] = ..., format: _Optional[int] = ..., diversity: _Optional[int] = ..., hyde: _Optional[int] = ..., quality: _Optional[int] = ..., entity: _Optional[int] = ..., think_bonus: _Optional[int] = ..., total: _Optional[int] = ..., max_possible: _Optional[int] = ..., percentage: _Optional[float] = ..., rating: _Optional[_Union[Rating, str]] = ..., only_mode: _Optional[str] = ..., entities: _Optional[_Iterable[str]] = ..., reasons: _Optional[_Iterable[_Union[Deduction, _Mapping]]] = ...) -> None: ...

class Deduction(_message.Message):
    __slots__ = ("reason", "kind", "lines", "count", "texts")
    REASON_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    kind: Kind
    lines: _containers.RepeatedScalarFieldContainer[int]
    count: int
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., kind: _Optional[_Union[Kind, str]] = ..., lines: _Optional[_Iterable[int]] = ..., count: _Optional[int] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class RetrievalScore(_message.Message):
    __slots__ = ("gain", "without_expansion", "with_expansion", "lines", "is_fallback", "is_strong_signal")
    GAIN_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_EXPANSION_FIELD_NUMBER: _ClassVar[int]
    WITH_EXPANSION_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    IS_FALLBACK_FIELD_NUMBER: _ClassVar[int]
    IS_STRONG_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    gain: float
    without_expansion: RetrievalQuality
    with_expansion: RetrievalQuality
    lines: _containers.RepeatedCompositeFieldContainer[LineScore]
    is_fallback: bool
    is_strong_signal: bool
    def __init__(self, gain: _Optional[float] = ..., without_expansion: _Optional[_Union[RetrievalQuality, _Mapping]] = ..., with_expansion: _Optional[_Union[RetrievalQuality, _Mapping]] = ..., lines: _Optional[_Iterable[_Union[LineScore, _Mapping]]] = ..., is_fallback: _Optional[bool] = ..., is_strong_signal: _Optional[bool] = ...) -> None: ...

class RetrievalQuality(_message.Message):
    __slots__ = ("ndcg_at_10", "recall_at_20")
    NDCG_AT_10_FIELD_NUMBER: _ClassVar[int]
    RECALL_AT_20_FIELD_NUMBER: _ClassVar[int]
    ndcg_at_10: float
    recall_at_20: float
    def __init__(self, ndcg_at_10: _Optional[float] = ..., recall_at_20: _Optional[float] = ...) -> None: ...

class LineScore(_message.Message):
    __slots__ = ("kind", "text", "is_dropped", "credit", "found", "relevant")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    RELEVANT_FIELD_NUMBER: _ClassVar[int]
    kind: Kind
    text: str
    is_dropped: bool
    credit: float
    found: int
    relevant: _containers.RepeatedCompositeFieldContainer[FoundDocument]
    def __init__(self, kind: _Optional[_Union[Kind, str]] = ..., text: _Optional[str] = ..., is_dropped: _Optional[bool] = ..., credit: _Optional[float] = ..., found: _Optional[int] = ..., relevant: _Optional[_Iterable[_Union[FoundDocument, _Mapping]]] = ...) -> None: ...

class FoundDocument(_message.Message):
    __slots__ = ("id", "rank", "relevance")
    ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    rank: int
    relevance: int
    def __init__(self, id: _Optional[str] = ..., rank: _Optional[int] = ..., relevance: _Optional[int] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("name", "documents", "queries", "split")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    documents: int
    queries: int
    split: str
    def __init__(self, name: _Optional[str] = ..., documents: _Optional[int] = ..., queries: _Optional[int] = ..., split: _Optional[str] = ...) -> None: ...
