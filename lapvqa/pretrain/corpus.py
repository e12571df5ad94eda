"""What pretraining reads: the pairs of train and validate."""

from __future__ import annotations

from dataclasses import dataclass

from lapvqa.errors import ConfigError, SourceError
from lapvqa.images import report_pairs
from lapvqa.images.report_pairs import Pair
from lapvqa.images.shards import ShardStore, verify_shards
from lapvqa.networks.decoder import MAX_LENGTH
from lapvqa.project import Project


@dataclass(frozen=True)
class Corpus:
    """Pairs of train and validate, the shards they point to, and a digest of all of it.

    ``without_image`` counts the reports of both splits that have no frontal image.
    """

    train: list[Pair]
    validate: list[Pair]
    store: ShardStore
    without_image: int
    digest: str


def read_corpus(project: Project) -> Corpus:
    """Read the pairs.

    Raises SourceError if there is nothing to train on, SchemaError if a shard is damaged.
    """
    train, train_without = report_pairs.read_pairs(project, "train")
    validate, validate_without = report_pairs.read_pairs(project, "validate")
    if not train:
        raise SourceError(
            "expected frontal images with reports in the split train, found none "
            f"({train_without} reports there have no frontal image)",
            hint="data/rejects.parquet and data/token_rejects.parquet say what was turned away",
        )
    longest = max(len(pair.token_ids) for pair in train + validate)
    if longest > MAX_LENGTH:
        raise ConfigError(
            f"the decoder has {MAX_LENGTH} positions, the longest report {longest} tokens",
            hint=f"set tokens.max_length to at most {MAX_LENGTH}",
        )
    digest = report_pairs.digest_pairs(train + validate)
    store = ShardStore(project.images_dir)
    verify_shards(project.images_dir, {pair.shard for pair in train + validate})
    return Corpus(train, validate, store, train_without + validate_without, digest)
