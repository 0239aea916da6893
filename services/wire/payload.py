"""Protobuf's wire format, as far as it takes to put one payload behind a message and to find it again."""

from dataclasses import dataclass

VARINT = 0
FIXED64 = 1
LENGTH_DELIMITED = 2
FIXED32 = 5


@dataclass(frozen=True, slots=True)
class Payload:
    """Where one field's payload lies in a message, and the message's bytes without that field."""

    start: int
    end: int
    rest: bytes


def header(field: int, length: int) -> bytes:
    """Write the tag and the length that stand before a payload of `length` bytes."""
    return _as_varint(field << 3 | LENGTH_DELIMITED) + _as_varint(length)


def split_off(data: bytes, start: int, end: int, field: int) -> Payload | None:
    """Find the one length-delimited field of this number in the message data[start:end].

    None when it is absent or given twice, or the message is broken or holds groups: there the generated
    classes decide.
    """
    tag = field << 3 | LENGTH_DELIMITED
    found: tuple[int, int, int] | None = None
    position = start
    try:
        while position < end:
            field_start = position
            field_tag, position = _varint(data, position)
            wire_type = field_tag & 7
            if wire_type == LENGTH_DELIMITED:
                length, position = _varint(data, position)
                payload_start, position = position, position + length
                if field_tag == tag:
                    if found is not None:
                        return None
                    found = (field_start, payload_start, position)
            elif wire_type == VARINT:
                _, position = _varint(data, position)
            elif wire_type in (FIXED64, FIXED32):
                position += 8 if wire_type == FIXED64 else 4
            else:
                return None
    except IndexError:
        return None
    if position != end or found is None:
        return None
    field_start, payload_start, payload_end = found
    return Payload(payload_start, payload_end, data[start:field_start] + data[payload_end:end])


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = data[position]
    if value < 0x80:
        return value, position + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        position += 1
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
    raise IndexError("a varint has at most ten bytes")


def _as_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
