"""Bodies of the requests, in the wire's camelCase; keys that the server does not use are ignored."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

SHA256 = r"^[0-9a-f]{64}$"


class Message(BaseModel):
    """Reads camelCase keys into snake_case fields."""

    model_config = ConfigDict(alias_generator=to_camel)


class RepositoryName(Message):
    """`/api/repos/create` and `/api/repos/delete`; old clients send `private`, new ones `visibility`."""

    name: str
    organization: str | None = None
    type: Literal["model", "dataset"] = "model"
    visibility: Literal["public", "private"] | None = None
    private: bool | None = None


class Settings(Message):
    """`PUT .../settings`; a field that is None keeps its value."""

    gated: Literal["auto", "manual", False] | None = None
    visibility: Literal["public", "private"] | None = None
    private: bool | None = None


class Card(Message):
    """`POST /api/validate-yaml`."""

    content: str
    repo_type: str = "model"


class PlannedFile(Message):
    """A file that a client is about to commit; `sample` is base64 of its first 512 bytes."""

    path: str
    size: int
    sample: str = ""


class Preupload(Message):
    """`POST .../preupload/{revision}`."""

    files: list[PlannedFile] = Field(max_length=256)


class LfsObject(Message):
    """An object of the LFS batch and verify calls."""

    oid: str = Field(pattern=SHA256)
    size: int = Field(ge=0)


class UploadedPart(Message):
    """A part as its receiver named it."""

    part_number: int
    etag: str


class LfsCompletion(Message):
    """The client's list of all parts of an object."""

    oid: str = Field(pattern=SHA256)
    parts: list[UploadedPart]


class LfsBatch(Message):
    """`POST /{id}.git/info/lfs/objects/batch`."""

    operation: Literal["upload"]
    objects: list[LfsObject]
    transfers: list[str] = ["basic"]


class NewTag(Message):
    """`POST .../tag/{revision}`."""

    tag: str
    message: str | None = None


class NewCollection(Message):
    """`POST /api/collections`."""

    title: str = Field(min_length=1)
    namespace: str
    description: str | None = None
    private: bool = False


class ItemName(Message):
    """What a collection holds."""

    id: str
    type: Literal["model", "dataset"]


class NewItem(Message):
    """`POST /api/collections/{slug}/items`."""

    item: ItemName


class CollectionChange(Message):
    """`PATCH /api/collections/{slug}`; a field that is None keeps its value."""

    private: bool | None = None


class NewBranch(Message):
    """`POST .../branch/{branch}`."""

    starting_point: str = "main"
