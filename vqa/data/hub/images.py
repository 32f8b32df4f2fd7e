"""Images of a data set of the hub: each is written once, under the digest of its file."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from vqa.data.hub.rows import Columns, image_bytes
from vqa.data.hub.sources import Row
from vqa.errors import InputError, quoted
from vqa.files import atomic_write

MOST_BYTES = 1 << 28  # of an image in an archive
PLAIN_ENDING = re.compile(r"\.[A-Za-z0-9]{1,5}")
DIGITS = 24  # hexadecimal ones of an image's SHA-256 in its name
ENDINGS = (  # of images, by how they begin
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"RIFF", ".webp"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
)


class ImageStore:
    """Where the image of a row comes from: the row itself, another configuration, or an archive.

    Args:
        out: the folder of the data set; images lie in `images` there.
        path_of: the path of each image by its id, where another configuration holds them.
        archives: zip files that hold them.
    """

    def __init__(self, out: Path, path_of: Mapping[str, str] | None = None, archives: Sequence[Path] = ()) -> None:
        self._out, self._path_of = out, path_of
        self._archives = [zipfile.ZipFile(path) for path in archives]
        self._members: dict[str, list[tuple[zipfile.ZipFile, str]]] = {}
        for archive in self._archives:
            for name in archive.namelist():
                self._members.setdefault(PurePosixPath(name).name, []).append((archive, name))

    def path(self, row: Row, columns: Columns, where: str) -> str:
        """The path of a row's image from the folder; the image is written unless it is there.

        Raises:
            InputError: beginning with `where`, when the row has no image, or names one that is nowhere.
        """
        if "image" in columns.of:
            found = image_bytes(row.get(columns.of["image"]))
            if found is None:
                raise InputError(f"{where} has no image")
            return self._keep(*found)
        key = str(row.get(columns.of["image_key"]))
        if self._path_of is None:
            return self._from_archive(key, where)
        if key not in self._path_of:
            raise InputError(f"{where}: its image {quoted(key)} is not among the images")
        return self._path_of[key]

    def _from_archive(self, key: str, where: str) -> str:
        """An image whose name in an archive ends in `key`, folders included."""
        parts = PurePosixPath(key).parts
        named = self._members.get(PurePosixPath(key).name, [])
        found = [one for one in named if PurePosixPath(one[1]).parts[-len(parts) :] == parts]
        if len(found) != 1:
            raise InputError(f"{where}: its image {quoted(key)} is in the archives {len(found)} times, not once")
        archive, member = found[0]
        if archive.getinfo(member).file_size > MOST_BYTES:
            raise InputError(f"{archive.filename}: {member} has more than {MOST_BYTES:,} bytes, too many for an image")
        try:
            return self._keep(archive.read(member), member)
        except (zipfile.BadZipFile, zlib.error, KeyError, OSError) as error:
            raise InputError(f"{archive.filename}: {member} cannot be read: {error}") from None

    def _keep(self, content: bytes, name: str) -> str:
        digest = hashlib.sha256(content).hexdigest()
        named = PurePosixPath(name).suffix
        other = named if PLAIN_ENDING.fullmatch(named) else ""
        ending = next((ending for begin, ending in ENDINGS if content.startswith(begin)), other)
        path = f"images/{digest[:2]}/{digest[:DIGITS]}{ending}"
        if not (self._out / path).is_file():
            with atomic_write(self._out / path, "wb") as file:
                file.write(content)
        return path
