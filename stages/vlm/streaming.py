"""Encode any number of images at bounded memory: a few at a time, into shards on disk, each image once."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.core.progress import Advance
from stages.core.ranks import Ranks
from stages.records.encoded import EncodedSet
from stages.records.store import StoredRecords
from stages.vlm.encoder import assemble, encode_image, require_rule
from stages.vlm.image_cache import ImageCache, digest_of
from stages.vlm.loaded import Loaded
from stages.vlm.seen import KeptImage
from stages.vlm.selection import Rule
from stages.vlm.tokens import tokenise

ROUND = 16
"""Images that a process encodes before it hands them to the leader."""
SHARD = 256
"""Images of one shard of the cache: as many are encoded again after a kill, at most."""


def encode_stored(
    loaded: Loaded,
    records: StoredRecords,
    rule: Rule,
    cache: ImageCache,
    advance: Advance,
    ranks: Ranks,
) -> tuple[list[str], EncodedSet]:
    """Encode a stored record set; return the names of its images in the cache, and the set.

    Guarantee: the set is that of ``encode_set``, bit for bit, whatever the cache held before and however many
    processes share the work; its features stay on disk. Only the process that leads gets it, others an empty
    one.
    """
    require_rule(loaded, rule)
    digests: list[str] = []
    pending: list[tuple[str, KeptImage]] = []
    forecast = Forecast(cache.folder, len(records.images))
    at_once = ROUND * ranks.world
    for start in range(0, len(records.images), at_once):
        part = range(start, min(start + at_once, len(records.images)))
        own = [_encoded(loaded, records.images[image], rule, cache) for image in ranks.share(part)]
        for digest, kept in _of_all(ranks, own):
            digests.append(digest)
            if kept is not None and digest not in cache:
                pending.append((digest, kept))
        if ranks.leads:
            forecast.show(len(digests), [kept for _, kept in pending])
        if len(pending) >= SHARD:
            _flush(cache, pending)
        advance(part.stop)
    _flush(cache, pending)
    if not ranks.leads:
        return [], assemble(loaded, [], [], [], [], cache.features([]), rule)
    tokens = [
        tokenise(row, loaded, [cache.frame(digests[image]) for image in images])
        for row, images in zip(records.rows, records.images_of_row, strict=True)
    ]
    shown = [cache.kept(digest) for digest in digests]
    features = cache.features(digests)
    return digests, assemble(loaded, records.rows, tokens, records.images_of_row, shown, features, rule)


class Forecast:
    """Says once, after the first images, how long and how much disk the others will take."""

    def __init__(self, folder: Path, total: int) -> None:
        """Begin to measure."""
        self.folder, self.total, self.start, self.shown = folder, total, time.monotonic(), False

    def show(self, done: int, kept: Sequence[KeptImage]) -> None:
        """Print the forecast, once; a disk that will not do is refused before the rest is encoded."""
        if self.shown or not kept:
            return
        self.shown = True
        left = (self.total - done) * (time.monotonic() - self.start) / done
        each = sum(image.features_SD.nbytes for image in kept) / len(kept)
        needed, free = (
            2 * each * self.total,
            shutil.disk_usage(self.folder).free,
        )  # here and in the encoded set
        print(f"encode: about {left:.0f} s and {needed / 1e6:.1f} MB of disk ({free / 1e6:.0f} MB are free)")
        if needed > free:
            raise ValueError(
                f"encoding takes about {needed / 1e9:.2f} GB and the disk of {self.folder} has "
                f"{free / 1e9:.2f} GB free: make room, or keep fewer visual tokens (calibrate.candidates)"
            )


def _encoded(loaded: Loaded, image: bytes, rule: Rule, cache: ImageCache) -> tuple[str, KeptImage | None]:
    digest = digest_of(image)
    return digest, None if digest in cache else encode_image(loaded, image, rule)


def _of_all(ranks: Ranks, own: list[tuple[str, KeptImage | None]]) -> Iterator[tuple[str, KeptImage | None]]:
    """Yield what all processes encoded, in the order of the images, to the leader; the others get nothing."""
    parts = ranks.to_leader(own)
    if ranks.leads:
        for index in range(sum(len(part) for part in parts)):
            yield parts[index % ranks.world][index // ranks.world]


def _flush(cache: ImageCache, pending: list[tuple[str, KeptImage]]) -> None:
    if pending:
        cache.add([digest for digest, _ in pending], [kept for _, kept in pending])
        pending.clear()
