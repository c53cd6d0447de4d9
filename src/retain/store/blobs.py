"""Pictures' bytes, by content hash: written once, durable before any event speaks of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from retain.errors import Damaged, UnknownImage
from retain.store.manifest import sync_folder
from retain.values import content_hash

__all__ = ["Blobs"]


class Blobs:
    """The folder ``blobs/``: ``ab/abcdef…`` for the SHA-256 ``abcdef…``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, image: str) -> Path:
        """Where a picture's bytes are or would be."""
        digest = image.removeprefix("sha256:")
        return self._folder / digest[:2] / digest

    def write(self, pictures: Mapping[str, bytes]) -> None:
        """Keep pictures; on return they are durable."""
        folders = set()
        for image, data in pictures.items():
            path = self.path(image)
            if path.exists() and path.stat().st_size == len(data):
                continue
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                folders.add(self._folder)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)

    def read(self, image: str) -> bytes:
        """A picture's bytes.

        Raises:
            UnknownImage: if they are not kept.
            Damaged: if they are not what they were.
        """
        path = self.path(image)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UnknownImage(f"the bytes of {image} are not kept here") from None
        if content_hash(data) != image:
            raise Damaged(
                f"{path} does not hold the picture it is named for; put a copy of it back, or "
                f"forget the picture: retain forget NAME {image}"
            )
        return data

    def erase(self, images: Iterable[str]) -> int:
        """Overwrite and remove; returns how many bytes there were."""
        erased, folders = 0, set()
        for image in images:
            path = self.path(image)
            for leftover in (path, *path.parent.glob(f".{path.name}.*.tmp")):
                try:
                    size = leftover.stat().st_size
                    with leftover.open("r+b") as file:
                        file.write(bytes(size))
                        file.flush()
                        os.fsync(file.fileno())
                    leftover.unlink()
                except FileNotFoundError:
                    continue
                erased += size
                folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)
            # A folder named for the first two digits would tell a little of what was there.
            if not any(folder.iterdir()):
                folder.rmdir()
        return erased

    def all(self) -> Iterator[str]:
        """The names of everything kept."""
        for path in sorted(self._folder.glob("*/*")):
            if len(path.name) == 64:
                yield f"sha256:{path.name}"
