from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("request", "software", "invitation_id", "signing_key")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    INVITATION_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    software: str
    invitation_id: str
    signing_key: bytes
    def __init__(self, request: _Optional[bytes] = ..., software: _Optional[str] = ..., invitation_id: _Optional[str] = ..., signing_key: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("request", "signing_key")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIGNING_KEY_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    signing_key: bytes
    def __init__(self, request: _Optional[bytes] = ..., signing_key: _Optional[bytes] = ...) -> None: ...

class IssuedCredentials(_message.Message):
    __slots__ = ("chain_pem", "roots_pem", "trust_root")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    ROOTS_PEM_FIELD_NUMBER: _ClassVar[int]
    TRUST_ROOT_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    roots_pem: bytes
    trust_root: bytes
    def __init__(self, chain_pem: _Optional[bytes] = ..., roots_pem: _Optional[bytes] = ..., trust_root: _Optional[bytes] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("number", "integer", "text", "truth", "raw", "numbers", "integers", "texts", "truths", "raws")
    class Numbers(_message.Message):
        __slots__ = ("items",)
        ITEMS_FIELD_NUMBER: _ClassVar[int]
        items: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, items: _Optional[_Iterable[float]] = ...) -> None: ...
    class Integers(_message.Message):
        __slots__ = ("items",)
        ITEMS_FIELD_NUMBER: _ClassVar[int]
        items: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, items: _Optional[_Iterable[int]] = ...) -> None: ...
    class Texts(_message.Message):
        __slots__ = ("items",)
        ITEMS_FIELD_NUMBER: _ClassVar[int]
        items: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, items: _Optional[_Iterable[str]] = ...) -> None: ...
    class Truths(_message.Message):
        __slots__ = ("items",)
        ITEMS_FIELD_NUMBER: _ClassVar[int]
        items: _containers.RepeatedScalarFieldContainer[bool]
        def __init__(self, items: _Optional[_Iterable[bool]] = ...) -> None: ...
    class Raws(_message.Message):
        __slots__ = ("items",)
        ITEMS_FIELD_NUMBER: _ClassVar[int]
        items: _containers.RepeatedScalarFieldContainer[bytes]
        def __init__(self, items: _Optional[_Iterable[bytes]] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TRUTHS_FIELD_NUMBER: _ClassVar[int]
    RAWS_FIELD_NUMBER: _ClassVar[int]
    number: float
    integer: int
    text: str
    truth: bool
    raw: bytes
    numbers: Value.Numbers
    integers: Value.Integers
    texts: Value.Texts
    truths: Value.Truths
    raws: Value.Raws
    def __init__(self, number: _Optional[float] = ..., integer: _Optional[int] = ..., text: _Optional[str] = ..., truth: _Optional[bool] = ..., raw: _Optional[bytes] = ..., numbers: _Optional[_Union[Value.Numbers, _Mapping]] = ..., integers: _Optional[_Union[Value.Integers, _Mapping]] = ..., texts: _Optional[_Union[Value.Texts, _Mapping]] = ..., truths: _Optional[_Union[Value.Truths, _Mapping]] = ..., raws: _Optional[_Union[Value.Raws, _Mapping]] = ...) -> None: ...

class Field(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: Value
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...

class ArrayHead(_message.Message):
    __slots__ = ("name", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("name", "kind", "arrays", "fields")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Record.Kind]
        ARRAYS: _ClassVar[Record.Kind]
        METRICS: _ClassVar[Record.Kind]
        CONFIG: _ClassVar[Record.Kind]
    KIND_UNSPECIFIED: Record.Kind
    ARRAYS: Record.Kind
    METRICS: Record.Kind
    CONFIG: Record.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ARRAYS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Record.Kind
    arrays: _containers.RepeatedCompositeFieldContainer[ArrayHead]
    fields: _containers.RepeatedCompositeFieldContainer[Field]
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Record.Kind, str]] = ..., arrays: _Optional[_Iterable[_Union[ArrayHead, _Mapping]]] = ..., fields: _Optional[_Iterable[_Union[Field, _Mapping]]] = ...) -> None: ...

class Blob(_message.Message):
    __slots__ = ("sha256", "size")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size: int
    def __init__(self, sha256: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Content(_message.Message):
    __slots__ = ("records", "inline", "blob")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    inline: bytes
    blob: Blob
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., inline: _Optional[bytes] = ..., blob: _Optional[_Union[Blob, _Mapping]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "study", "plan_hash", "round", "kind", "content")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    study: str
    plan_hash: bytes
    round: int
    kind: str
    content: Content
    def __init__(self, task_id: _Optional[str] = ..., study: _Optional[str] = ..., plan_hash: _Optional[bytes] = ..., round: _Optional[int] = ..., kind: _Optional[str] = ..., content: _Optional[_Union[Content, _Mapping]] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: str
    text: str
    def __init__(self, code: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("task_id", "study", "plan_hash", "round", "content", "fault")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    study: str
    plan_hash: bytes
    round: int
    content: Content
    fault: Fault
    def __init__(self, task_id: _Optional[str] = ..., study: _Optional[str] = ..., plan_hash: _Optional[bytes] = ..., round: _Optional[int] = ..., content: _Optional[_Union[Content, _Mapping]] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "software", "sent_ms", "root_version")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    ROOT_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    sent_ms: int
    root_version: int
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ..., sent_ms: _Optional[int] = ..., root_version: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "server_ms", "heartbeat_ms", "catalogue_digest", "roots")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SERVER_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_MS_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    server_ms: int
    heartbeat_ms: int
    catalogue_digest: bytes
    roots: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, protocol: _Optional[int] = ..., server_ms: _Optional[int] = ..., heartbeat_ms: _Optional[int] = ..., catalogue_digest: _Optional[bytes] = ..., roots: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Pulse(_message.Message):
    __slots__ = ("sent_ms", "catalogue_digest")
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    sent_ms: int
    catalogue_digest: bytes
    def __init__(self, sent_ms: _Optional[int] = ..., catalogue_digest: _Optional[bytes] = ...) -> None: ...

class AskCatalogue(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Offer(_message.Message):
    __slots__ = ("plan_envelope", "state")
    PLAN_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    plan_envelope: bytes
    state: str
    def __init__(self, plan_envelope: _Optional[bytes] = ..., state: _Optional[str] = ...) -> None: ...

class Catalogue(_message.Message):
    __slots__ = ("digest", "offers")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    offers: _containers.RepeatedCompositeFieldContainer[Offer]
    def __init__(self, digest: _Optional[bytes] = ..., offers: _Optional[_Iterable[_Union[Offer, _Mapping]]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("study", "plan_hash", "take_part")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    PLAN_HASH_FIELD_NUMBER: _ClassVar[int]
    TAKE_PART_FIELD_NUMBER: _ClassVar[int]
    study: str
    plan_hash: bytes
    take_part: bool
    def __init__(self, study: _Optional[str] = ..., plan_hash: _Optional[bytes] = ..., take_part: _Optional[bool] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("sha256", "offset")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    offset: int
    def __init__(self, sha256: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class Received(_message.Message):
    __slots__ = ("task_id", "accepted", "reason")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    accepted: bool
    reason: str
    def __init__(self, task_id: _Optional[str] = ..., accepted: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Recall(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class HeldLogHead(_message.Message):
    __slots__ = ("statement", "signature")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    signature: bytes
    def __init__(self, statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class GossipedHead(_message.Message):
    __slots__ = ("site", "statement", "signature", "proof")
    SITE_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    site: str
    statement: bytes
    signature: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, site: _Optional[str] = ..., statement: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class ProvenEntry(_message.Message):
    __slots__ = ("index", "entry", "proof")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    index: int
    entry: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, index: _Optional[int] = ..., entry: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class LogNews(_message.Message):
    __slots__ = ("head", "consistency", "others", "entries")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    others: _containers.RepeatedCompositeFieldContainer[GossipedHead]
    entries: _containers.RepeatedCompositeFieldContainer[ProvenEntry]
    def __init__(self, head: _Optional[bytes] = ..., consistency: _Optional[_Iterable[bytes]] = ..., others: _Optional[_Iterable[_Union[GossipedHead, _Mapping]]] = ..., entries: _Optional[_Iterable[_Union[ProvenEntry, _Mapping]]] = ...) -> None: ...

class AskLogRequest(_message.Message):
    __slots__ = ("held_size", "study", "version")
    HELD_SIZE_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    held_size: int
    study: str
    version: int
    def __init__(self, held_size: _Optional[int] = ..., study: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class FromSite(_message.Message):
    __slots__ = ("hello", "pulse", "ask_catalogue", "decision", "answer", "want", "held_log_head")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PULSE_FIELD_NUMBER: _ClassVar[int]
    ASK_CATALOGUE_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    HELD_LOG_HEAD_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    pulse: Pulse
    ask_catalogue: AskCatalogue
    decision: Decision
    answer: Answer
    want: Want
    held_log_head: HeldLogHead
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., pulse: _Optional[_Union[Pulse, _Mapping]] = ..., ask_catalogue: _Optional[_Union[AskCatalogue, _Mapping]] = ..., decision: _Optional[_Union[Decision, _Mapping]] = ..., answer: _Optional[_Union[Answer, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., held_log_head: _Optional[_Union[HeldLogHead, _Mapping]] = ...) -> None: ...

class ToSite(_message.Message):
    __slots__ = ("welcome", "pulse", "catalogue", "task", "want", "received", "recall", "log_news")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    PULSE_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    LOG_NEWS_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    pulse: Pulse
    catalogue: Catalogue
    task: Task
    want: Want
    received: Received
    recall: Recall
    log_news: LogNews
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., pulse: _Optional[_Union[Pulse, _Mapping]] = ..., catalogue: _Optional[_Union[Catalogue, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., received: _Optional[_Union[Received, _Mapping]] = ..., recall: _Optional[_Union[Recall, _Mapping]] = ..., log_news: _Optional[_Union[LogNews, _Mapping]] = ...) -> None: ...

class ListReleasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseEntry(_message.Message):
    __slots__ = ("study", "version", "created", "statement_sha256")
    STUDY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_SHA256_FIELD_NUMBER: _ClassVar[int]
    study: str
    version: int
    created: str
    statement_sha256: str
    def __init__(self, study: _Optional[str] = ..., version: _Optional[int] = ..., created: _Optional[str] = ..., statement_sha256: _Optional[str] = ...) -> None: ...

class ListReleasesReply(_message.Message):
    __slots__ = ("releases",)
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    releases: _containers.RepeatedCompositeFieldContainer[ReleaseEntry]
    def __init__(self, releases: _Optional[_Iterable[_Union[ReleaseEntry, _Mapping]]] = ...) -> None: ...

class FetchFileRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class FileChunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class RoundState(_message.Message):
    __slots__ = ("parameters", "memory")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    parameters: Content
    memory: Content
    def __init__(self, parameters: _Optional[_Union[Content, _Mapping]] = ..., memory: _Optional[_Union[Content, _Mapping]] = ...) -> None: ...
