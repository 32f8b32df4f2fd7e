"""Images themselves, ready for batches: what a model that tunes its image encoder takes in place of features.

Legend: `N` images of the table, `B` questions of a batch, `U` distinct images of a batch, `S` side of an image;
the 3 is the colour channel (red, green, blue).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.preprocessing import DecodedImage, require_files
from vqa.features.tables.residency import HOST_SHARE
from vqa.progress import progress_bar
from vqa.runtime.distributed import local_processes
from vqa.runtime.memory import available_memory
from vqa.runtime.transfer import thread_for, to_device

THREADS = 4  # that decode


class PixelBatch(NamedTuple):
    """The images of a batch, each once.

    Attributes:
        pixels_U3SS: uint8, on the device.
        place_B: int64, which of them each question is about.
    """

    pixels_U3SS: Tensor
    place_B: Tensor

    def __len__(self) -> int:
        """Questions."""
        return len(self.place_B)


class PixelTable:
    """Images with the methods of a `FeatureTable`; row `i` belongs to the `i`-th image of the image table.

    They are decoded once, in threads, and kept as bytes in main memory where they fit; otherwise each batch is decoded
    when it is needed, while the model works on the one before.

    Attributes:
        residency: "host" or "disk".
        reason: where the images are and why, with sizes, one sentence to print.
        device: where batches go.
        regions, channels: of what the encoder makes of an image.
        image_digests: SHA-256 of each image's file; empty texts where the files were not read at the start.
    """

    def __init__(
        self, images: ImageTable, encoder: ImageEncoder, device: torch.device, residency: str = "auto"
    ) -> None:
        """Read the images, or find that they do not fit.

        Args:
            residency: "host", "disk", or "auto": host where they fit, once for every process of this machine.

        Raises:
            InputError: when images are missing, cannot be read or do not fit, or for residency "device".
        """
        require_files(images)
        if encoder.range_from_images:
            encoder.decode_as(encoder.preparation.decoding.of_images(images.paths))
        self.images, self.encoder, self.device = images, encoder, device
        self.regions, self.channels = encoder.regions, encoder.channels
        self.image_digests: Sequence[str] = [""] * len(images.ids)
        self._row = {name: row for row, name in enumerate(images.ids)}
        size, free = len(images.ids) * 3 * encoder.image_size**2, available_memory()
        if residency == "device":
            raise InputError("features.residency: images of a tuned encoder are kept on the host or read from disk")
        processes = local_processes()  # each decodes for itself
        each = f" for each of {processes} processes" if processes > 1 else ""
        fits = size * processes <= free * HOST_SHARE
        if residency == "host" and not fits:
            raise InputError(
                f"features.residency: host needs {size / 1e9:.2f} GB{each} for the images, but main memory has "
                f"{free / 1e9:.2f} GB free; take auto or disk"
            )
        self.residency = "host" if fits and residency != "disk" else "disk"
        self.pixels_N3SS = self._read_all() if self.residency == "host" else None
        place = "in main memory" if self.residency == "host" else "decoded for every batch"
        self.reason = f"images {place}: {size / 1e9:.2f} GB as bytes{each}, {free / 1e9:.2f} GB free"

    def __len__(self) -> int:
        return len(self.images.ids)

    @property
    def batch_regions(self) -> int:
        """Regions of an image as the encoder gives it."""
        return self.regions

    def find(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each image, -1 where the table does not have it."""
        return np.array([self._row.get(name, -1) for name in image_ids], dtype=np.int64)

    def gather(self, row_B: Tensor) -> PixelBatch:
        """The images of a batch, each once, on the device.

        Args:
            row_B: int64 rows of the table, on the CPU.
        """
        row_U, place_B = torch.unique(row_B, return_inverse=True)
        if self.pixels_N3SS is not None:
            pixels_U3SS = self.pixels_N3SS[row_U]
        else:
            with ThreadPoolExecutor(THREADS, thread_name_prefix="decode") as pool:
                pixels_U3SS = torch.stack([image.pixels_3SS for image in pool.map(self._load, row_U.tolist())])
        return PixelBatch(to_device(pixels_U3SS, self.device), to_device(place_B, self.device))

    def stream(self, rows: Sequence[Tensor]) -> Iterator[PixelBatch]:
        """One batch after another as `gather` gives them, the next one fetched while this one is computed with.

        Args:
            rows: int64 on the CPU, the rows of each batch.
        """
        if not rows:
            return
        copying = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        with thread_for(self.device, "images") as thread:
            fetching = thread.submit(self._fetch, rows[0], copying)
            for following in [*rows[1:], None]:
                batch, arrived = fetching.result()
                if following is not None:
                    fetching = thread.submit(self._fetch, following, copying)
                if arrived is not None:
                    computing = torch.cuda.current_stream(self.device)
                    computing.wait_event(arrived)
                    for tensor in batch:
                        tensor.record_stream(computing)  # its memory is the copying stream's only after that one's use
                yield batch

    def _fetch(self, row_B: Tensor, copying: torch.cuda.Stream | None) -> tuple[PixelBatch, torch.cuda.Event | None]:
        """A batch, and when it has arrived: copied on a stream of its own, so that it does not queue behind a step."""
        if copying is None:
            return self.gather(row_B), None
        with torch.cuda.stream(copying):
            return self.gather(row_B), copying.record_event()

    def _load(self, row: int) -> DecodedImage:
        return self.encoder.load(Path(self.images.paths[row]))

    def _read_all(self) -> Tensor:
        """Every image, uint8 `[N, 3, S, S]`, and the digests of their files."""
        side = self.encoder.image_size
        pixels_N3SS, digests = torch.empty((len(self), 3, side, side), dtype=torch.uint8), []
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        try:
            with progress_bar() as bar:
                task = bar.add_task("reading images", total=len(self), note="")
                for row, image in enumerate(pool.map(self._load, range(len(self)))):
                    pixels_N3SS[row] = image.pixels_3SS
                    digests.append(image.digest)
                    bar.update(task, advance=1)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        self.image_digests = digests
        return pixels_N3SS
