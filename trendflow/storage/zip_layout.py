"""The subset of the ZIP format that NPZ files use: stored members, no encryption, no ZIP64, one disk.

Writing is byte-deterministic: every attribute that could vary (time, platform, flags) is a constant. Reading checks
the whole directory against the bytes present before anything of a declared size is allocated.
Format: PKWARE APPNOTE 6.3.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.byte_source import ByteSource

Buffer = bytes | memoryview

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_LOCAL_SIGNATURE, _CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

_VERSION_NEEDED = 20
_MADE_BY_UNIX = (3 << 8) | 20
_DATE_1980_01_01 = (1 << 5) | 1
_REGULAR_FILE_0644 = 0o100644 << 16
_UTF8_NAME_FLAG = 0x0800
_STORED = 0
_MAX_DIRECTORY_ENTRY = 512
_MEMBER_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\.npy\Z")


@dataclass(frozen=True)
class ZipMember:
    """One stored member: `size` bytes with checksum `crc`, whose local header starts at `offset`."""

    name: str
    size: int
    crc: int
    offset: int


def _invalid(message: str, **detail: object) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", message, **detail)


def require_member_name(file_name: str) -> None:
    """Refuse names that are not `[a-z][a-z0-9_]{0,63}.npy`; path parts cannot match."""
    if not _MEMBER_NAME.match(file_name):
        raise _invalid(f"{file_name[:80]!r} is not a valid member name.")


def build_zip(members: Sequence[tuple[str, Sequence[Buffer]]]) -> list[Buffer]:
    """A ZIP file as buffers to be written one after the other; payload buffers are passed through, not copied."""
    parts: list[Buffer] = []
    directory: list[bytes] = []
    offset = 0
    for name, payload in members:
        size, crc = 0, 0
        for buffer in payload:
            size += len(buffer)
            crc = zlib.crc32(buffer, crc)
        raw = name.encode("ascii")
        common = (0, _STORED, 0, _DATE_1980_01_01, crc, size, size, len(raw), 0)
        parts += [_LOCAL.pack(_LOCAL_SIGNATURE, _VERSION_NEEDED, *common) + raw, *payload]
        directory.append(
            _CENTRAL.pack(
                _CENTRAL_SIGNATURE, _MADE_BY_UNIX, _VERSION_NEEDED, *common, 0, 0, 0, _REGULAR_FILE_0644, offset
            )
            + raw
        )
        offset += _LOCAL.size + len(raw) + size
    body = b"".join(directory)
    end = _END.pack(_END_SIGNATURE, 0, 0, len(members), len(members), len(body), offset, 0)
    return [*parts, body + end]


def read_directory(source: ByteSource, *, max_members: int, max_member: int, max_total: int) -> dict[str, ZipMember]:
    """Members by file name, in file order, every limit checked. Raises `artifact_validation_failed`.

    Members must be stored, uniquely and safely named, inside the file and free of overlaps, so the sum of their
    declared sizes can never exceed the bytes present.
    """
    entries, directory_offset, directory_size = _end_record(source, max_members)
    raw = source.read(directory_offset, directory_size)
    members: dict[str, ZipMember] = {}
    position = 0
    for _ in range(entries):
        member, position = _directory_entry(raw, position)
        if member.name in members:
            raise _invalid(f"Member {member.name!r} appears twice.", member=member.name)
        if member.size > max_member:
            raise _invalid(f"Member {member.name!r} declares {member.size} bytes.", member=member.name)
        members[member.name] = member
    if position != len(raw):
        raise _invalid("The archive directory holds more than its members.")
    total = sum(member.size for member in members.values())
    if total > max_total:
        raise _invalid(f"The members declare {total} bytes in total.", total=total)
    _refuse_overlaps(list(members.values()), directory_offset)
    return members


def payload_offset(source: ByteSource, member: ZipMember) -> int:
    """Position of a member's first byte, from its local header, which must agree with the directory."""
    raw = source.read(member.offset, _LOCAL.size + len(member.name))
    signature, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack_from(raw)
    agrees = signature == _LOCAL_SIGNATURE and raw[_LOCAL.size :] == member.name.encode("ascii")
    if not agrees or name_length != len(member.name) or method != _STORED or flags & ~_UTF8_NAME_FLAG:
        raise _invalid(f"The local header of {member.name!r} contradicts the directory.", member=member.name)
    start = member.offset + _LOCAL.size + name_length + extra_length
    if start + member.size > source.size:
        raise _invalid(f"Member {member.name!r} declares more bytes than the file holds.", member=member.name)
    return start


def _end_record(source: ByteSource, max_members: int) -> tuple[int, int, int]:
    if source.size < _END.size:
        raise _invalid("The file is too short to be an archive.", size=source.size)
    record = source.read(source.size - _END.size, _END.size)
    signature, disk, start_disk, here, entries, size, offset, comment = _END.unpack(record)
    if signature != _END_SIGNATURE or comment:
        raise _invalid("The file does not end with an archive directory; it is truncated or not an NPZ.")
    if disk or start_disk or here != entries:
        raise _invalid("Archives over several disks are not accepted.")
    if entries > max_members:
        raise _invalid(f"The archive declares {entries} members, more than {max_members}.", members=entries)
    if offset + size + _END.size != source.size:
        raise _invalid("The archive directory is not where the file says it is.")
    if size > entries * _MAX_DIRECTORY_ENTRY:
        raise _invalid("The archive directory is longer than its members need.")
    return entries, offset, size


def _directory_entry(raw: bytes, position: int) -> tuple[ZipMember, int]:
    if position + _CENTRAL.size > len(raw):
        raise _invalid("The archive directory is truncated.")
    fields = _CENTRAL.unpack_from(raw, position)
    signature, flags, method = fields[0], fields[3], fields[4]
    crc, compressed, size, name_length, extra_length, comment_length = fields[7:13]
    offset = fields[16]
    start = position + _CENTRAL.size
    stop = start + name_length + extra_length + comment_length
    if signature != _CENTRAL_SIGNATURE or stop > len(raw):
        raise _invalid("The archive directory is malformed.")
    name = raw[start : start + name_length].decode("latin-1")
    require_member_name(name)
    if method != _STORED or compressed != size:
        raise _invalid(f"Member {name!r} is compressed; only stored members are accepted.", member=name)
    if flags & ~_UTF8_NAME_FLAG:
        raise _invalid(f"Member {name!r} is encrypted or streamed.", member=name)
    return ZipMember(name=name, size=size, crc=crc, offset=offset), stop


def _refuse_overlaps(members: list[ZipMember], directory_offset: int) -> None:
    previous_stop, previous_name = 0, ""
    for member in sorted(members, key=lambda item: item.offset):
        if member.offset < previous_stop:
            raise _invalid(f"Members {previous_name!r} and {member.name!r} overlap.", member=member.name)
        previous_stop = member.offset + _LOCAL.size + len(member.name) + member.size
        previous_name = member.name
    if previous_stop > directory_offset:
        raise _invalid(f"Member {previous_name!r} declares more bytes than the file holds.", member=previous_name)
