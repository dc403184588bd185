"""Encode any number of images and rows: a few at a time, into files on disk, each image once.

What stays in memory is an index: the digest and the places of each image, the name of each unit.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.core.progress import Advance
from stages.core.ranks import Ranks
from stages.records.encoded import EncodedSet
from stages.records.refusal import quote
from stages.records.store import StoredRecords
from stages.records.token_rows import TokenRows
from stages.vlm.encoder import assemble, encode_image, encode_rows, image_token_id, require_rule
from stages.vlm.image_cache import ImageCache, digest_of
from stages.vlm.loaded import Loaded
from stages.vlm.seen import KeptImage
from stages.vlm.selection import Rule
from stages.vlm.tokens import tokenise_rows

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
    *,
    is_public: bool,
) -> tuple[list[str], EncodedSet]:
    """Encode a stored record set; return the names of its images in the cache, and the set.

    Guarantee: the set is that of ``encode_set``, bit for bit, whatever the cache held before and however many
    processes share the work; its features and rows stay on disk. Only the process that leads gets it, others
    an empty one. All processes must see the same cache.
    """
    require_rule(loaded, rule)
    digests: list[str] = []
    pending: list[tuple[str, KeptImage]] = []
    forecast = Forecast(cache.folder, len(records.images), len(cache), is_public)
    at_once = ROUND * ranks.world
    for start in range(0, len(records.images), at_once):
        part = range(start, min(start + at_once, len(records.images)))
        own = [_encoded(loaded, records, image, rule, cache) for image in ranks.share(part)]
        fresh = 0
        for digest, kept in _of_all(ranks, own):
            digests.append(digest)
            if kept is not None and digest not in cache:
                pending.append((digest, kept))
                fresh += 1
        if ranks.leads:
            forecast.show(fresh, [kept for _, kept in pending])
        if len(pending) >= SHARD:
            _flush(cache, pending)
        advance(part.stop)
    _flush(cache, pending)

    def kept_of(image: int) -> KeptImage:
        return cache.kept(digests[image])

    if not ranks.leads:
        return [], assemble(loaded, TokenRows.of([]), cache.features([]), [], rule)
    kinds = records.kinds()
    tokens = tokenise_rows(records.rows(), loaded, lambda image: cache.frame(digests[image]))
    token_rows = encode_rows(records.rows(), tokens, kept_of, kinds, image_token_id(loaded))
    rows = TokenRows.on_disk(token_rows, cache.folder)
    return digests, assemble(loaded, rows, cache.features(digests), kinds, rule)


class Forecast:
    """Says once, after the first images, how long and how much disk the others will take."""

    def __init__(self, folder: Path, total: int, cached: int, is_public: bool) -> None:
        """Begin to measure; ``cached`` images need no encoding."""
        self.folder, self.total, self.is_public = folder, total, is_public
        self.missing = max(1, total - cached)
        self.start, self.shown = time.monotonic(), False

    def show(self, encoded: int, kept: Sequence[KeptImage]) -> None:
        """Print the forecast, once; a disk that will not do is refused before the rest is encoded.

        Numbers of private records are told to nobody: they would say how many there are.
        """
        if self.shown or not encoded:
            return
        self.shown = True
        left = max(0, self.missing - encoded) * (time.monotonic() - self.start) / encoded
        each = sum(image.features_SD.nbytes for image in kept) / len(kept)
        needed = each * (self.missing + self.total)  # in the cache, and in the encoded set
        free = shutil.disk_usage(self.folder).free
        if self.is_public:
            print(
                f"encode: about {left:.0f} s and {needed / 1e6:.1f} MB of disk ({free / 1e6:.0f} MB are free)"
            )
        if needed > free:
            raise ValueError(
                f"the disk of {self.folder} is too small for what encoding will write: make room, or keep "
                "fewer visual tokens (calibrate.candidates)"
            )


def _encoded(
    loaded: Loaded, records: StoredRecords, image: int, rule: Rule, cache: ImageCache
) -> tuple[str, KeptImage | None]:
    content = records.images[image]
    digest = digest_of(content)
    if digest in cache:
        return digest, None
    try:
        return digest, encode_image(loaded, content, rule)
    except ValueError as error:
        name = next(row.id for row, images in records.rows() if image in images)
        raise ValueError(f"the image of record {quote(name)} cannot be encoded: {error}") from None


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
