"""The base of every file model: frozen, unknown keys refused with the nearest known key named."""

from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """A file section. Unknown keys are refused; the error carries the key and a suggestion."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys_only(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in values:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                right = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
                raise PydanticCustomError("unknown_key", "unknown key {key}", {"key": str(key), "right": right})
        return values
