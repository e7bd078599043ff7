"""What a run says to OpenLineage: the data sets that it read and wrote, by the names of OpenLineage's own rules.

Owns these names and the counts. Refuses to need OpenLineage: its provider asks, and only then its classes are loaded.
Names hold hosts and ports, never a user or a password (I6).
"""

import re
from dataclasses import dataclass, field
from typing import Any

_PORTS = {"mongodb": 27017, "postgres": 5432}


@dataclass
class Lineage:
    """A run's data sets as far as they are known.

    Attributes:
        verb: The verb of the run.
        places: Argument of the verb → namespace, and for PostgreSQL the database.
        read: (namespace, name) of what is read.
        written: (namespace, name) of what is written.
    """

    verb: str
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    read: list[tuple[str, str]] = field(default_factory=list)
    written: list[tuple[str, str]] = field(default_factory=list)
    schema: str = "public"

    def know(self, argument: str, connection: Any, settings: Any) -> None:
        """Note where a connection leads."""
        if isinstance(settings, dict):
            first = str(settings.get("bootstrap.servers", "")).split(",")[0].strip()
            self.places[argument] = (f"kafka://{first}", "")
            return
        kind = "mongodb" if argument == "mongo_uri" else "postgres"
        host = (connection.host or "").split(",")[0]
        port = "" if re.search(r":\d+$", host) else f":{connection.port or _PORTS[kind]}"
        self.places[argument] = (f"{kind}://{host}{port}", connection.schema or "")

    def names(self, settings: dict[str, Any]) -> None:
        """Note what is read and written, once the arguments are read."""
        self.schema = settings.get("schema") or self.schema
        collection = f"{settings.get('database')}.{settings.get('collection')}"
        if self.verb == "bridge":
            self._add(self.read, "source", settings["source_topic"])
            self._add(self.written, "target", settings["target_topic"])
        elif self.verb == "sink":
            self._add(self.read, "source", settings["topic"])
            self._add(self.written, "mongo_uri", collection)
        else:
            self._add(self.read, "mongo_uri", collection)

    def _add(self, to: list[tuple[str, str]], argument: str, name: str) -> None:
        if argument in self.places:
            to.append((self.places[argument][0], name))

    def facets(self, books: dict[str, Any] | None) -> Any:
        """Return them in OpenLineage's classes; None where these are not installed.

        Args:
            books: The run's result; None when it failed.
        """
        try:
            from airflow.providers.openlineage.extractors import OperatorLineage
            from openlineage.client.event_v2 import InputDataset, OutputDataset
            from openlineage.client.facet_v2 import output_statistics_output_dataset
        except ImportError:
            return None
        counted = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet

        def output(namespace: str, name: str, rows: int | None, size: int | None = None) -> Any:
            facets = {"outputStatistics": counted(rowCount=rows, size=size)} if rows is not None else {}
            return OutputDataset(namespace=namespace, name=name, outputFacets=facets)

        found = books or {}
        done = {"bridge": "written", "sink": "inserted"}.get(self.verb, "")
        outputs = [output(*place, found.get(done), found.get("bytes")) for place in self.written]
        namespace, database = self.places.get("postgres_dsn", ("", ""))
        if namespace:
            rows = found.get("rows") or {}
            outputs += [output(namespace, f"{database}.{self.schema}.{table}", n) for table, n in rows.items()]
        return OperatorLineage(
            inputs=[InputDataset(namespace=namespace, name=name) for namespace, name in self.read],
            outputs=outputs,
            run_facets={"millpond": _run_facet(self.verb, found)} if books else {},
        )


def _run_facet(verb: str, books: dict[str, Any]) -> Any:
    """Return the books as a facet of the run: counts, dates and positions."""
    import attr
    from openlineage.client.facet_v2 import RunFacet

    @attr.define(kw_only=True)
    class MillpondRunFacet(RunFacet):
        """The books of a run, in the words of millpond."""

        verb: str
        books: dict[str, Any]

        @staticmethod
        def _get_schema() -> str:
            return "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"

    kept = {name: value for name, value in books.items() if isinstance(value, int | float | str)}
    kept |= {
        name: books[name] for name in ("dates", "excluded", "positions", "dead_letters_by_reason") if name in books
    }
    return MillpondRunFacet(verb=verb, books=kept)
