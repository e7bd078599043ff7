"""What Airflow is told of this package: `airflow providers list` shows it.

Owns the description. Refuses to name connection types: `kafka`, `mongo` and `postgres` belong to their own providers,
which may be installed or not.
"""

from typing import Any

_NAME = "millpond"


def get_provider_info() -> dict[str, Any]:
    """Return the description in the shape of Airflow's `provider_info.schema.json`."""
    home = "millpond.airflow"
    return {
        "package-name": _NAME,
        "name": _NAME,
        "description": "Exactly-once Kafka to Kafka to MongoDB to daily reports in PostgreSQL.",
        "integrations": [{"integration-name": _NAME, "tags": ["software"]}],
        "operators": [
            {
                "integration-name": _NAME,
                "python-modules": [f"{home}.bridge", f"{home}.sink", f"{home}.aggregate"],
            }
        ],
        "sensors": [{"integration-name": _NAME, "python-modules": [f"{home}.sensor"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": [f"{home}.trigger"]}],
        "extra-links": [f"{home}.links.{link}" for link in ("LettersLink", "ReportLink", "SparkLink")],
    }
