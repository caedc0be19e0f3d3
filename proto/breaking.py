"""`python proto/breaking.py OLD NEW`: what a client built from OLD would miss in NEW; exits with 1 if anything.

OLD and NEW are descriptor sets as protoc writes them. A field may go only when its number and name are reserved.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

Message = DescriptorProto
Enum = EnumDescriptorProto


def breaking_changes(old: FileDescriptorSet, new: FileDescriptorSet) -> list[str]:
    """One sentence a change that breaks clients; empty when all of them go on working."""
    problems = []
    for file in old.file:
        package = file.package
        messages = {name: message for f in new.file if f.package == package for name, message in _messages(f)}
        enums = {name: enum for f in new.file if f.package == package for name, enum in _enums(f)}
        services = {service.name: service for f in new.file if f.package == package for service in f.service}
        for name, message in _messages(file):
            problems += _message_changes(name, message, messages.get(name))
        for name, enum in _enums(file):
            problems += _enum_changes(name, enum, enums.get(name))
        for service in file.service:
            problems += _service_changes(service, services)
    return problems


def _messages(scope: object, prefix: str = "") -> Iterator[tuple[str, Message]]:
    for message in getattr(scope, "message_type", None) or getattr(scope, "nested_type", ()):
        yield prefix + message.name, message
        yield from _messages(message, f"{prefix}{message.name}.")


def _enums(scope: object, prefix: str = "") -> Iterator[tuple[str, Enum]]:
    for enum in getattr(scope, "enum_type", ()):
        yield prefix + enum.name, enum
    for message in getattr(scope, "message_type", None) or getattr(scope, "nested_type", ()):
        yield from _enums(message, f"{prefix}{message.name}.")


def _message_changes(name: str, old: Message, new: Message | None) -> Iterator[str]:
    if new is None:
        yield f"message {name} is gone"
        return
    fields = {field.number: field for field in new.field}
    for field in old.field:
        where = f"{name}.{field.name} = {field.number}"
        now = fields.get(field.number)
        if now is None:
            reserved = any(span.start <= field.number < span.end for span in new.reserved_range)
            if not reserved or field.name not in new.reserved_name:
                yield f"{where} is gone, and its number and name are not both reserved"
        elif _shape(old, field) != _shape(new, now):
            yield f"{where} has another name, type, label or oneof"
    for span in old.reserved_range:
        yield from (
            f"{name}: the reserved number {n} is used again" for n in range(span.start, span.end) if n in fields
        )


def _shape(message: Message, field: FieldDescriptorProto) -> tuple[object, ...]:
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
    return field.name, field.json_name, field.type, field.type_name, field.label, oneof


def _enum_changes(name: str, old: Enum, new: Enum | None) -> Iterator[str]:
    if new is None:
        yield f"enum {name} is gone"
        return
    values = {value.number: value.name for value in new.value}
    for value in old.value:
        if values.get(value.number) != value.name:
            yield f"{name}: {value.name} = {value.number} is gone or has another name"


def _service_changes(old: ServiceDescriptorProto, services: Mapping[str, ServiceDescriptorProto]) -> Iterator[str]:
    new = services.get(old.name)
    if new is None:
        yield f"service {old.name} is gone"
        return
    methods = {method.name: method for method in new.method}
    for method in old.method:
        if methods.get(method.name) != method:
            yield f"{old.name}.{method.name} is gone, or takes, gives or streams something else"


def main() -> int:
    old, new = (FileDescriptorSet.FromString(Path(path).read_bytes()) for path in sys.argv[1:3])
    problems = breaking_changes(old, new)
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
