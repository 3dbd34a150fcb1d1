"""JSON that carries its own hash: whichever byte of such a file changes, its reader knows.

The text is the only one that its content can have: keys sorted, indented by two spaces, a final newline, and the key
`sha256` with the hash of the same text without that key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gradstore.errors import StoreCorruptError

_SEAL = "sha256"


def json_text(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and a final newline; NaN and infinity are refused, for JSON has none."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def sealed(document: Mapping[str, Any]) -> str:
    """The text of a document, with its hash in it; a hash that is there already is replaced.

    >>> require_sealed(sealed({"a": 1}), "a.json")
    {'a': 1}
    """
    content = {key: value for key, value in document.items() if key != _SEAL}
    digest = hashlib.sha256(json_text(content).encode()).hexdigest()
    return json_text({**content, _SEAL: digest})


def require_sealed(text: str | bytes, name: str) -> dict[str, Any]:
    """The document of a text that `sealed` wrote, without its hash; `name` is the file's, for the message.

    Raises:
        StoreCorruptError: the text is not as it was written.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        document: dict[str, Any] = json.loads(text)
        whole = sealed(document) == text
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreCorruptError(f"{name} is not JSON ({error}). {_CURE}") from error
    if not whole:
        raise StoreCorruptError(f"{name} is not as it was written: the hash in it is of another text. {_CURE}")
    return {key: value for key, value in document.items() if key != _SEAL}


_CURE = "Restore it from a copy, or build the store anew at another path."
