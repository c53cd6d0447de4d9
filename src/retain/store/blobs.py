"""Pictures' bytes, by content hash: written once, durable before any event speaks of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from retain.errors import Damaged, UnknownImage
from retain.store.manifest import sync_folder as sync  # of files it makes the bytes durable
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
        """Keep pictures; on return they are durable.

        All are written before any is waited for, so that the disk may take them in one go; and each
        is whole on the disk before it bears its name.
        """
        folders, written = set(), {}
        try:
            for image, data in pictures.items():
                path = self.path(image)
                # What is there already may have been left by a process killed before this.
                folders |= {self._folder, path.parent}
                if path.exists() and path.stat().st_size == len(data):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                written[temporary] = path
                temporary.write_bytes(data)
            for temporary in written:
                sync(temporary)
            for temporary, path in written.items():
                temporary.replace(path)
        finally:
            for temporary in written:
                temporary.unlink(missing_ok=True)
        for folder in folders:
            sync(folder)

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
        return self._erase(
            file
            for image in images
            for path in [self.path(image)]
            for file in (path, *path.parent.glob(f".{path.name}.*.tmp"))
        )

    def erase_strays(self, kept: Collection[str]) -> int:
        """Erase what a killed process left: half-written files, and pictures not in `kept`."""
        return self._erase(
            path
            for path in sorted(self._folder.glob("*/*"))
            if path.suffix == ".tmp" or (len(path.name) == 64 and f"sha256:{path.name}" not in kept)
        )

    def _erase(self, files: Iterable[Path]) -> int:
        erased, folders = 0, set()
        for path in files:
            try:
                size = path.stat().st_size
                with path.open("r+b") as file:
                    file.write(bytes(size))
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink()
            except FileNotFoundError:
                continue
            erased += size
            folders.add(path.parent)
        for folder in folders:
            sync(folder)
            # A folder named for the first two digits would tell a little of what was there.
            if not any(folder.iterdir()):
                folder.rmdir()
        return erased

    def all(self) -> Iterator[str]:
        """The names of everything kept."""
        for path in sorted(self._folder.glob("*/*")):
            if len(path.name) == 64:
                yield f"sha256:{path.name}"
