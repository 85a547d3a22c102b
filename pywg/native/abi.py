"""One declaration per declaration of core/include/pywg.h, in the same order. No logic."""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int32,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)

# ---- version

PYWG_ABI_VERSION = 1

# ---- status

pywg_status = c_int32
PYWG_OK = 0
PYWG_HANDED_OVER = 1
PYWG_INVALID_ARGUMENT = -1
PYWG_OUT_OF_MEMORY = -2
PYWG_BUFFER_TOO_SMALL = -3
PYWG_CONFIGURATION = -4
PYWG_PERMISSION = -5
PYWG_NAME_IN_USE = -6
PYWG_ADDRESS_IN_USE = -7
PYWG_NOT_FOUND = -8
PYWG_LIMIT = -9
PYWG_CLOSED = -10
PYWG_SYSTEM = -11
PYWG_FORKED = -12


class pywg_diagnostic(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("status", c_int32),
        ("os_errno", c_int32),
        ("line", c_uint32),
        ("column", c_uint32),
        ("text", c_char * 256),
    )


# ---- endpoint


class pywg_endpoint(Structure):
    _fields_ = (
        ("family", c_uint8),
        ("reserved", c_uint8),
        ("port", c_uint16),
        ("scope_id", c_uint32),
        ("address", c_uint8 * 16),
    )


# ---- device

pywg_device_p = c_void_p

PYWG_OFFLOAD_TUN_TSO = 1
PYWG_OFFLOAD_TUN_USO = 2
PYWG_OFFLOAD_UDP_GSO = 4
PYWG_OFFLOAD_UDP_GRO = 8
PYWG_OFFLOAD_TUN_TUNNEL = 16

PYWG_LOG_SILENT = 0
PYWG_LOG_ERROR = 1
PYWG_LOG_VERBOSE = 2


class pywg_device_options(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("name", c_char_p),
        ("mtu", c_uint32),
        ("tun_fd", c_int32),
        ("uapi_fd", c_int32),
        ("offload_disable", c_uint32),
        ("log_level", c_uint32),
        ("log_fd", c_int32),
        ("no_uapi", c_uint32),
        ("threads", c_uint32),
        ("memory_limit", c_uint64),
        ("udp4_fd", c_int32),
        ("udp6_fd", c_int32),
        ("take_over", c_uint32),
    )


class pywg_peer_counters(Structure):
    _fields_ = (
        ("public_key", c_uint8 * 32),
        ("endpoint", pywg_endpoint),
        ("last_handshake_unix_ns", c_uint64),
        ("rx_bytes", c_uint64),
        ("tx_bytes", c_uint64),
    )


PYWG_EVENT_LOST = 0
PYWG_EVENT_HANDSHAKE = 1
PYWG_EVENT_ENDPOINT = 2
PYWG_EVENT_STALE = 3
PYWG_EVENT_GONE = 4
PYWG_EVENT_STEPPED_DOWN = 5
PYWG_EVENT_PORT_FAILED = 6
PYWG_EVENT_HEALED = 7
PYWG_EVENT_REMOVED = 8
PYWG_EVENT_TROUBLE = 9


class pywg_event(Structure):
    _fields_ = (
        ("kind", c_uint32),
        ("os_errno", c_int32),
        ("lost", c_uint64),
        ("offload", c_uint32),
        ("port", c_uint32),
        ("public_key", c_uint8 * 32),
        ("endpoint", pywg_endpoint),
    )


# ---- interface

pywg_interface_p = c_void_p


class pywg_now(Structure):
    _fields_ = (
        ("boot_ns", c_uint64),
        ("unix_ns", c_uint64),
    )


PYWG_VERDICT_DROPPED = 0
PYWG_VERDICT_SEALED = 1
PYWG_VERDICT_STAGED = 2
PYWG_VERDICT_DELIVER = 3
PYWG_VERDICT_HANDSHAKE = 4
PYWG_VERDICT_KEEPALIVE = 5


class pywg_packet(Structure):
    _fields_ = (
        ("data", c_void_p),
        ("length", c_size_t),
        ("capacity", c_size_t),
        ("endpoint", pywg_endpoint),
        ("verdict", c_uint32),
        ("drop", c_uint32),
    )


pywg_entropy = CFUNCTYPE(c_int32, c_void_p, POINTER(c_uint8), c_size_t)


class pywg_interface_options(Structure):
    _fields_ = (
        ("size", c_size_t),
        ("mtu", c_uint32),
        ("reserved", c_uint32),
        ("entropy", pywg_entropy),
        ("entropy_context", c_void_p),
    )


_diagnostic_p = POINTER(pywg_diagnostic)
_now_p = POINTER(pywg_now)
_packets = POINTER(pywg_packet)
_size_p = POINTER(c_size_t)
_numbers = POINTER(c_uint64)

# name -> (restype, argtypes), in the order of the header
FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "pywg_abi_version": (c_uint32, []),
    "pywg_version": (c_char_p, []),
    "pywg_cipher_path": (c_char_p, []),
    "pywg_cipher_select": (None, [c_char_p]),
    "pywg_status_name": (c_char_p, [pywg_status]),
    "pywg_key_generate": (pywg_status, [c_void_p]),
    "pywg_key_public": (pywg_status, [c_void_p, c_void_p]),
    "pywg_device_open": (
        pywg_status,
        [POINTER(pywg_device_options), POINTER(pywg_device_p), _diagnostic_p],
    ),
    "pywg_device_set": (pywg_status, [pywg_device_p, c_char_p, c_size_t, _diagnostic_p]),
    "pywg_device_get": (pywg_status, [pywg_device_p, c_void_p, c_size_t, _size_p]),
    "pywg_device_report": (pywg_status, [pywg_device_p, c_void_p, c_size_t, _size_p]),
    "pywg_device_name": (pywg_status, [pywg_device_p, c_void_p, c_size_t, _size_p]),
    "pywg_device_counters": (
        pywg_status,
        [pywg_device_p, POINTER(pywg_peer_counters), c_size_t, c_size_t, _size_p],
    ),
    "pywg_device_handshake": (pywg_status, [pywg_device_p, c_char_p, _diagnostic_p]),
    "pywg_device_events_open": (
        pywg_status,
        [pywg_device_p, c_uint32, POINTER(c_int32), _diagnostic_p],
    ),
    "pywg_device_events": (
        pywg_status,
        [pywg_device_p, POINTER(pywg_event), c_size_t, c_size_t, _size_p],
    ),
    "pywg_device_run": (pywg_status, [pywg_device_p, _diagnostic_p]),
    "pywg_device_stop": (pywg_status, [pywg_device_p]),
    "pywg_device_close": (None, [pywg_device_p]),
    "pywg_interface_open": (
        pywg_status,
        [POINTER(pywg_interface_options), POINTER(pywg_interface_p), _diagnostic_p],
    ),
    "pywg_interface_set": (
        pywg_status,
        [pywg_interface_p, _now_p, c_char_p, c_size_t, _diagnostic_p],
    ),
    "pywg_interface_get": (pywg_status, [pywg_interface_p, c_void_p, c_size_t, _size_p]),
    "pywg_interface_seal": (pywg_status, [pywg_interface_p, _now_p, _packets, _packets, c_size_t]),
    "pywg_interface_receive": (
        pywg_status,
        [pywg_interface_p, _now_p, _packets, c_size_t, c_uint32],
    ),
    "pywg_interface_expire": (pywg_status, [pywg_interface_p, _now_p]),
    "pywg_interface_poll": (pywg_status, [pywg_interface_p, _now_p, _packets, c_size_t, _size_p]),
    "pywg_interface_deadline": (pywg_status, [pywg_interface_p, POINTER(c_uint64)]),
    "pywg_interface_dropped": (pywg_status, [pywg_interface_p, c_uint32, POINTER(c_uint64)]),
    "pywg_interface_close": (None, [pywg_interface_p]),
    "pywg_interface_seal_batch": (
        pywg_status,
        [pywg_interface_p, _now_p, _packets, _packets, _numbers, c_size_t, _diagnostic_p],
    ),
    "pywg_interface_receive_batch": (
        pywg_status,
        [pywg_interface_p, _now_p, _packets, _numbers, c_size_t, c_uint32, _diagnostic_p],
    ),
    "pywg_interface_poll_batch": (
        pywg_status,
        [pywg_interface_p, _now_p, _packets, _numbers, c_size_t, _size_p, _diagnostic_p],
    ),
    "pywg_interface_peer_key": (pywg_status, [pywg_interface_p, c_uint64, c_void_p]),
    "pywg_interface_peer_number": (pywg_status, [pywg_interface_p, c_void_p, _numbers]),
    "pywg_drop_name": (c_char_p, [c_uint32]),
}


def declare(library: ctypes.CDLL) -> None:
    """Gives every function its types: without them ctypes cuts pointers to 32 bits."""
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
