"""The built-in transform and the default reports, as values."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProductViews:
    """Both raw shapes of a tracker's event become the seven fields of a stored one.

    Attributes:
        local_time_zone: An IANA name: a missing time is derived from `local_time` in that zone. None: it stays null.
    """

    local_time_zone: str | None = None

    def __call__(self, *, local_time_zone: str | None = None) -> "ProductViews":
        """Return the transform with options."""
        return ProductViews(local_time_zone)

    def to_dict(self) -> dict[str, Any]:
        """Return what the native part reads."""
        return {"name": "product_views", "local_time_zone": self.local_time_zone}


PRODUCT_VIEWS = ProductViews()
PRODUCT_VIEW_REPORTS = "product_views"
