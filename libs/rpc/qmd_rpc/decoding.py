"""Reads messages from the wire; what cannot be read is the caller's mistake and is named as one."""

import functools
from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message

Decoded = TypeVar("Decoded", bound=Message)


class RequestError(Exception):
    """A request that breaks its contract. The message names field and limit; the call ends with INVALID_ARGUMENT."""


def decode(message_type: type[Decoded], data: bytes, where: str = "", first: int = 0) -> Decoded:
    """Raises RequestError for bytes that are no such message, naming the first text that is not UTF-8.

    where: what stands before a field's name, such as "requests[3].".
    first: the index of the first item of a repeated field, where the message is a part of a longer one.
    """
    try:
        return message_type.FromString(data)
    except DecodeError:
        pass
    try:
        raw = _with_bytes(message_type.DESCRIPTOR).FromString(data)
    except DecodeError:
        raise RequestError(f"{where or 'message: '}is no {message_type.DESCRIPTOR.full_name}") from None
    for path, text in _texts(raw, where, first):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"{path}: is no UTF-8 at byte {error.start}") from None
    raise RequestError(f"{where or 'message: '}holds a text that is no UTF-8")


@functools.cache
def _with_bytes(descriptor: Descriptor) -> type[Message]:
    """The same message with bytes wherever it has text; on the wire both are alike."""
    pool = descriptor_pool.DescriptorPool()
    for file in _with_imports(descriptor.file):
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        for message in proto.message_type:
            for field in message.field:
                if field.type == FieldDescriptorProto.TYPE_STRING:
                    field.type = FieldDescriptorProto.TYPE_BYTES
        pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(descriptor.full_name))


def _with_imports(file: Any) -> Iterator[Any]:
    for imported in file.dependencies:
        yield from _with_imports(imported)
    yield file


def _texts(message: Message, where: str, first: int = 0) -> Iterator[tuple[str, bytes]]:
    """Each text in a message of `_with_bytes`, with its path."""
    for field, value in message.ListFields():
        repeated = field.is_repeated
        for index, item in enumerate(value if repeated else [value], start=first):
            path = f"{where}{field.name}[{index}]" if repeated else f"{where}{field.name}"
            if field.type == FieldDescriptor.TYPE_BYTES:
                yield path, item
            elif field.type == FieldDescriptor.TYPE_MESSAGE and isinstance(item, Message):
                yield from _texts(item, f"{path}.")
