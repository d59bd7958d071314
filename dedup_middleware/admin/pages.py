"""The dashboard's files: read once, served from memory, known by name.

Law: a name that is not in the list does not exist; nothing is looked up in the file system for a request.
"""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import Final

import msgspec
from starlette.responses import Response

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".json": "application/json",
    ".woff2": "font/woff2",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


class File(msgspec.Struct, frozen=True):
    """One file."""

    content: bytes
    media: str
    tag: str

    def response(self, known: str | None) -> Response:
        """The file, or that the client has it."""
        headers = {"etag": self.tag, "cache-control": "no-cache"}
        if known == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media)


def files() -> dict[str, File]:
    """What there is, by path below the mount; the page itself is at "/"."""
    found = {}
    for file in sorted(_FOLDER.iterdir()) if _FOLDER.is_dir() else ():
        if file.is_file():
            content = file.read_bytes()
            media = (
                _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            )
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found["/" if file.name == "index.html" else f"/static/{file.name}"] = File(content, media, tag)
    return found
