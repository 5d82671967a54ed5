"""Identifiers that sort by time: a prefix and a UUID of version 7 (RFC 9562)."""

import secrets
import time
import uuid
from typing import Literal

Prefix = Literal["mod", "dat", "job", "cnd", "art"]


def new_id(prefix: Prefix) -> str:
    """A new identifier, such as job_0192f0c1e7a07b3c8d4e5f6a7b8c9d0e.

    Millisecond, then its 4096th part (RFC 9562, 6.2, method 3), then 62 random bits.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    fraction = rest * 4096 // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return f"{prefix}_{uuid.UUID(int=value).hex}"
