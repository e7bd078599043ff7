"""The house rules, as tests over the tracked files: boundaries, names, sizes, and what must stay out of the repository.

CONTRIBUTING.md states the rules in prose. Each rule is a function from files to complaints, so that the last test can
show that each of them complains about a file that breaks it.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES = 400
# Files over the limit, each with its reason.
LONG: dict[str, str] = {}
FORBIDDEN_NAMES = re.compile(r"(?:^|_)(?:utils?|helpers?|common|managers?)(?:_|$)")
UNSAFE = "src/kafka/native/"
BINDING = "src/python/"
AIRFLOW = ("python/millpond/airflow/", "dags/", "tests/", "scripts/")
SPARK = ("python/millpond/spark.py", "python/millpond/executors.py", "tests/", "benchmarks/", "scripts/")
# Split so that this file does not complain about itself.
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.~$}])/(?:ro" + r"ot|wo" + r"rk|fa" + r"rm)/")
INDEXES = re.compile(r"--(?:extra-)?index" + r"-url|--find" + r"-links|https?://[^\s\"'>]*(?:simple|index|registry)\b")
SKIPPING = re.compile(r"pytest\.(?:mark\.)?(?:sk" + r"ip|importor" + r"skip|x" + r"fail)|#\[ig" + r"nore")

Files = dict[str, str]


def tracked() -> Files:
    """The text files that git knows or would add, by path."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    files: Files = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and not path.is_symlink():
            try:
                files[name] = path.read_text()
            except UnicodeDecodeError:
                continue
    return files


def rust(files: Files) -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in files.items() if name.startswith("src/") and name.endswith(".rs"))


def python(files: Files) -> Iterator[tuple[str, str]]:
    return ((name, text) for name, text in files.items() if name.endswith(".py"))


def shipped(text: str) -> str:
    """Rust code without its unit tests and comments, lines kept in place."""
    body = re.split(r"^\s*#\[cfg\(test\)\]\s*\n\s*mod \w+ \{", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.sub(r"//.*", "", body)


def imports(text: str) -> set[str]:
    """The top-level names of every package that a Python file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def pyo3_stays_in_the_binding(files: Files) -> Iterator[str]:
    for name, text in rust(files):
        if not name.startswith(BINDING) and re.search(r"\bpyo3\b", shipped(text)):
            yield f"{name}: only {BINDING} imports pyo3"


def no_unwrap(files: Files) -> Iterator[str]:
    for name, text in rust(files):
        for number, line in enumerate(shipped(text).splitlines(), 1):
            if ".unwrap()" in line:
                yield f"{name}:{number}: unwrap outside tests: return the error, or expect() an invariant"


def unsafe_has_a_home(files: Files) -> Iterator[str]:
    for name, text in rust(files):
        if not name.startswith((UNSAFE, BINDING)) and re.search(r"\bunsafe\b(?!_)", shipped(text)):
            yield f"{name}: unsafe belongs in {UNSAFE}"


def modules_say_what_they_own(files: Files) -> Iterator[str]:
    for name, text in rust(files):
        if not text.startswith("//!"):
            yield f"{name}: open with //! and what the module owns"
    for name, text in python(files):
        if text.strip() and ast.get_docstring(ast.parse(text)) is None:
            yield f"{name}: open with a docstring"


def public_items_are_documented(files: Files) -> Iterator[str]:
    item = re.compile(r"^\s*pub (?:const |async |unsafe )*(?:fn|struct|enum|trait|type|static) (\w+)")
    for name, text in rust(files):
        lines = shipped_with_comments(text)
        for number, line in enumerate(lines):
            if found := item.match(line):
                above = number - 1
                while above >= 0 and re.match(r"^\s*(?:#\[|[\w\s(),.:\"=-]*\)?\]$)", lines[above]):
                    above -= 1
                if above < 0 or not lines[above].lstrip().startswith("///"):
                    yield f"{name}:{number + 1}: {found[1]} is public and undocumented"


def shipped_with_comments(text: str) -> list[str]:
    return re.split(r"^\s*#\[cfg\(test\)\]", text, maxsplit=1, flags=re.MULTILINE)[0].splitlines()


def files_are_small(files: Files) -> Iterator[str]:
    for name, text in [*rust(files), *python(files)]:
        if name not in LONG and (count := len(text.splitlines())) > LINES:
            yield f"{name}: {count} lines, over {LINES}: split it by concept"


def names_say_something(files: Files) -> Iterator[str]:
    for name in files:
        if any(FORBIDDEN_NAMES.search(part.split(".")[0].lower()) for part in name.split("/")):
            yield f"{name}: name it after its concept"


def nothing_is_left_unfinished(files: Files) -> Iterator[str]:
    for name, text in files.items():
        if UNFINISHED.search(text) and not name.startswith("requirements/"):
            yield f"{name}: finish it or file an issue"


def no_test_is_skipped(files: Files) -> Iterator[str]:
    for name, text in files.items():
        if name.endswith((".py", ".rs")) and SKIPPING.search(text):
            yield f"{name}: a test that cannot run fails"


def no_machine_is_named(files: Files) -> Iterator[str]:
    for name, text in files.items():
        if found := MACHINE_PATHS.search(text):
            yield f"{name}: holds the path {found[0]} of one machine"


def no_index_is_named(files: Files) -> Iterator[str]:
    for name, text in files.items():
        if name.startswith(("requirements/", "scripts/", ".ci/")) or name in {"Makefile", "pyproject.toml"}:
            for line in text.splitlines():
                if INDEXES.search(line):
                    yield f"{name}: names an index: {line.strip()[:80]}"


def optional_systems_stay_optional(files: Files) -> Iterator[str]:
    for name, text in python(files):
        names = imports(text)
        if "airflow" in names and not name.startswith(AIRFLOW):
            yield f"{name}: Airflow is imported under {AIRFLOW[0]} and dags/ only"
        if "pyspark" in names and not name.startswith(SPARK):
            yield f"{name}: Spark is imported in {SPARK[0]} only"


def the_version_stands_once(files: Files) -> Iterator[str]:
    version = tomllib.loads(files["Cargo.toml"])["package"]["version"]
    if "version" in tomllib.loads(files["pyproject.toml"])["project"]:
        yield "pyproject.toml: the version stands in Cargo.toml"
    for name, text in [*rust(files), *python(files)]:
        if f'"{version}"' in text:
            yield f"{name}: spells the version {version}; ask Cargo or the package for it"
    if not re.search(rf"^## \[{re.escape(version)}\]", files["CHANGELOG.md"], re.MULTILINE):
        yield f"CHANGELOG.md: no entry for {version}"


RULES: list[Callable[[Files], Iterator[str]]] = [
    pyo3_stays_in_the_binding, no_unwrap, unsafe_has_a_home, modules_say_what_they_own, public_items_are_documented,
    files_are_small, names_say_something, nothing_is_left_unfinished, no_test_is_skipped, no_machine_is_named,
    no_index_is_named, optional_systems_stay_optional, the_version_stands_once,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_rule(rule: Callable[[Files], Iterator[str]]) -> None:
    complaints = list(rule(tracked()))
    assert not complaints, "\n".join(complaints)


METADATA = {
    "Cargo.toml": '[package]\nversion = "9.9.9"',
    "pyproject.toml": "[project]",
    "CHANGELOG.md": "## [9.9.9]",
}
BREAKS: list[tuple[Callable[[Files], Iterator[str]], Files]] = [
    (pyo3_stays_in_the_binding, {"src/sink/mod.rs": "use pyo3::prelude::*;"}),
    (no_unwrap, {"src/a.rs": "let b = c.unwrap();"}),
    (unsafe_has_a_home, {"src/sink/mod.rs": "unsafe { f() }"}),
    (modules_say_what_they_own, {"src/a.rs": "use b;"}),
    (modules_say_what_they_own, {"python/a.py": "import json"}),
    (public_items_are_documented, {"src/a.rs": "//! A.\n\n#[must_use]\npub fn f() {}"}),
    (files_are_small, {"src/a.rs": "\n" * 401}),
    (names_say_something, {"src/kafka_utils.rs": ""}),
    (nothing_is_left_unfinished, {"src/a.rs": "// TO" + "DO later"}),
    (no_test_is_skipped, {"tests/test_a.py": "pytest.sk" + "ip()"}),
    (no_machine_is_named, {"Makefile": "A = /ro" + "ot/a"}),
    (no_index_is_named, {"requirements/dev.txt": "--index" + "-url x"}),
    (optional_systems_stay_optional, {"python/millpond/a.py": "from airflow.models import DAG"}),
    (the_version_stands_once, {**METADATA, "python/a.py": 'v = "9.9.9"'}),
    (the_version_stands_once, {**METADATA, "CHANGELOG.md": ""}),
]


@pytest.mark.parametrize(("rule", "broken"), BREAKS, ids=[rule.__name__ for rule, _ in BREAKS])
def test_each_rule_can_fail(rule: Callable[[Files], Iterator[str]], broken: Files) -> None:
    assert list(rule(broken))


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _ in BREAKS} == set(RULES)


def test_ordinary_code_passes() -> None:
    files = {
        "src/python/run.rs": "//! The binding.\n\nuse pyo3::prelude::*;\n",
        "src/sink/load.rs": "//! Loads.\n\n/// Does.\n#[must_use]\npub fn f() {}\n\n#[cfg(test)]\nmod tests {\n"
        "    fn g() { h().unwrap(); }\n}\n",
        "python/millpond/airflow/a.py": '"""Operators."""\n\nfrom airflow.models import BaseOperator\n',
    }
    assert [complaint for rule in RULES[:-1] for complaint in rule(files)] == []
