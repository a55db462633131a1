"""What the typed records under the root have in common: they are immutable, and they are read from JSON with one kind of error."""

from typing import Self

from pydantic import BaseModel, ValidationError

from tasks.errors import DamagedError


class Record(BaseModel, frozen=True, extra="forbid"):
    """Base of all records. A record that is a file of its own has a field `format: Literal[...]`: the versions that are read."""

    @classmethod
    def parse(cls, content: str | bytes, origin: object, remedy: str) -> Self:
        """The record in `content`, read from `origin`. Fields that this version does not know are ignored.

        Raises DamagedError when it is not such a record, or one of an unknown format.
        """
        try:
            return cls.model_validate_json(content, extra="ignore")
        except ValidationError as error:
            raise DamagedError(f"{origin} cannot be read ({first_fault(error)}): {remedy}.") from error

    def to_json(self) -> str:
        """The record as an indented JSON text; numbers that are not finite become null."""
        return self.model_dump_json(indent=1) + "\n"


def first_fault(error: ValidationError) -> str:
    """The first thing that a validation found wrong: "training.depth: Field required"."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
