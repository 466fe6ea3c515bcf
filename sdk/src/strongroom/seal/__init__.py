"""Sealing: encryption of datasets and outputs, so that only the intended environment can read them.

Three parts. `stream` encrypts bytes of any size in constant memory with a data key. `keys` wraps that data key
to a recipient's public key. `header` is the JSON kept beside the ciphertext that says what it is and for whom.
"""

from strongroom.seal.header import (
    MEDIA_TYPES,
    Digested,
    SealHeader,
    aad_dataset,
    aad_outputs,
    info_data_key,
    info_egress_key,
    info_run_key,
    parse_seal_header,
    seal_header,
)
from strongroom.seal.keys import (
    SUITES,
    PrivateKey,
    PublicKey,
    generate_key_pair,
    unwrap_key,
    wrap_key,
)
from strongroom.seal.stream import (
    DATA_KEY_SIZE,
    FORMAT,
    HEADER_SIZE,
    SEGMENT_SIZE,
    TAG_SIZE,
    SealResult,
    Unsealer,
    ciphertext_size,
    generate_data_key,
    seal_stream,
    unseal_stream,
)

__all__ = [
    "DATA_KEY_SIZE",
    "FORMAT",
    "HEADER_SIZE",
    "MEDIA_TYPES",
    "SEGMENT_SIZE",
    "SUITES",
    "TAG_SIZE",
    "Digested",
    "PrivateKey",
    "PublicKey",
    "SealHeader",
    "SealResult",
    "Unsealer",
    "aad_dataset",
    "aad_outputs",
    "ciphertext_size",
    "generate_data_key",
    "generate_key_pair",
    "info_data_key",
    "info_egress_key",
    "info_run_key",
    "parse_seal_header",
    "seal_header",
    "seal_stream",
    "unseal_stream",
    "unwrap_key",
    "wrap_key",
]
