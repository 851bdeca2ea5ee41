# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two fronts, one engine: a module and the command run the same programs and say the same; no default is written twice."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._ansible.argspec import argument_spec
from ansible_collections.pgkeep.backup.plugins.module_utils._core import command_line
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain import model
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.schema import JOB_CLASSES, job_schema

from tests.keeper import ROOT, Done, Keeper
from tests.playbook import results, run_tasks
from tests.postgres import Server, quote_identifier

PLUGINS = ROOT / "plugins"

# --- the same request through both fronts ---

COMMANDS = {
    "pg_backup": "backup", "pg_backup_info": "list", "pg_backup_prune": "prune", "pg_backup_restore": "restore",
    "pg_backup_verify": "verify",
}  # fmt: skip
# What else of the options of all cases a module takes, besides the repository.
TAKES: dict[str, tuple[type, ...]] = {
    "pg_backup": (model.Connection, model.RunOptions),
    "pg_backup_restore": (model.Connection, model.RestoreOptions),
    "pg_backup_verify": (model.VerifyOptions, model.DrillOptions),
}
FIGURES = "figures"  # the command has a word of its own for them, and then shows no backups
SAMPLE = {"databases": ["sample"]}
MINE = "fronts_FRONT"  # a database for each front
BACK = {"database": "sample", "target": MINE}
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("a plan", "pg_backup", {**SAMPLE, "check": True}),
    ("a backup", "pg_backup", {**SAMPLE, "max_age": "1h"}),
    ("one that is not needed", "pg_backup", {**SAMPLE, "max_age": "1h"}),
    ("a partial one", "pg_backup", {**SAMPLE, "tables": ["orders", "audit.*"], "exclude_table_data": ["orders"],
                                    "format": "plain", "compression": "gzip:3", "globals": False}),
    ("a marked one", "pg_backup", {**SAMPLE, "format": "directory", "jobs": 2, "label": "x", "pin": "why",
                                   "pin_until": "2099-01-01", "globals": False, "parallel": 2}),
    ("some that fail", "pg_backup", {"databases": ["missing", "sample"], "exclude_tables": ["no_such"]}),
    ("databases by pattern", "pg_backup", {"include": ["samp.*", "nothing"], "exclude": ["post.*"], "globals": False,
                                           "compression": "none", "format": "tar", "role_passwords": "never"}),
    ("one for another server", "pg_backup", {**SAMPLE, "run_on": "standby"}),
    ("what cannot be meant", "pg_backup", {**SAMPLE, "jobs": 4, "pin_until": "2099-01-01"}),
    ("a value that is none", "pg_backup", {**SAMPLE, "max_age": "soon"}),
    ("a list", "pg_backup_info", {}),
    ("a list of some", "pg_backup_info", {**SAMPLE, "pinned": False, "complete": True, "after": "2020-01-01"}),
    ("a list with everything", "pg_backup_info", {"checksum": True, "foreign": True}),
    (FIGURES, "pg_backup_info", {"keep_last": 3, "keep_weekly": 2, "limit_mode": "both", "timezone": "Asia/Tokyo"}),
    ("a list with a label", "pg_backup_info", {"label": "x", "instance": "main"}),
    ("no list", "pg_backup_info", {"before": "once"}),
    ("a plan of a restore", "pg_backup_restore", {**BACK, "check": True}),
    ("a restore", "pg_backup_restore", {**BACK, "analyze": False}),
    ("one that is not needed any more", "pg_backup_restore", {**BACK, "if_exists": "skip"}),
    ("one that nobody asked for", "pg_backup_restore", BACK),
    ("a plan of one in place", "pg_backup_restore", {**BACK, "replace": MINE, "check": True}),
    ("one in place", "pg_backup_restore", {**BACK, "replace": MINE, "sessions": "terminate", "label": "x", "jobs": 2}),
    ("a part", "pg_backup_restore", {"database": "sample", "target": f"{MINE}_part", "schemas": ["audit"],
                                     "tables": ["trail"], "no_owner": True, "no_privileges": True}),
    ("what is not there", "pg_backup_restore", {**BACK, "target": f"{MINE}_none", "tables": ["ordres"]}),
    ("no backup", "pg_backup_restore", {"database": "nowhere", "before": "2020-01-01"}),
    ("checksums", "pg_backup_verify", {"level": "checksum"}),
    ("archives", "pg_backup_verify", {**SAMPLE, "sample": 2, "max_age": "1h"}),
    ("a plan of a drill", "pg_backup_verify", {"level": "restore", "latest": True, "check": True}),
    ("a drill", "pg_backup_verify", {"level": "restore", "latest": True,
                                     "checks": [{"query": "SELECT current_user = 'postgres'"}]}),
    ("a plan of a prune", "pg_backup_prune", {"keep_last": 1, "check": True}),
    ("a prune", "pg_backup_prune", {"keep_last": 1, "max_deletions": 1, **SAMPLE}),
    ("a prune by both limits", "pg_backup_prune", {"keep_last": 1, "keep_days": 1, "limit_mode": "both"}),
    ("a prune without a rule", "pg_backup_prune", {}),
    ("a drill with a wrong answer", "pg_backup_verify", {**SAMPLE, "level": "restore", "latest": True,
                                                         "checks": [{"query": "SELECT count(*) = 0 FROM orders"}]}),
    ("no drill", "pg_backup_verify", {"level": "restore", "sample": 0}),
)  # fmt: skip


def flags(options: dict[str, Any]) -> list[str]:
    """Given options of a module, return those of the command."""
    result: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if name == "check":
            result += ["--dry-run"] if value else []
        elif name in ("database", "databases"):
            result += [value] if isinstance(value, str) else value
        elif name == "checks":
            result += [f"{flag}={item['query']}" for item in value]
        elif isinstance(value, bool):
            result.append(flag if value else "--no-" + flag[2:])
        else:
            result += [f"{flag}={item}" for item in (value if isinstance(value, list) else [value])]
    return result


def of_front(value: Any, front: str) -> Any:
    """Given a part of the options of a case and the name of a front, return it with the names that are the front's."""
    if isinstance(value, dict):
        return {name: of_front(item, front) for name, item in value.items()}
    return value.replace("FRONT", front) if isinstance(value, str) else value


def accepted(module: str, options: dict[str, Any]) -> dict[str, Any]:
    """Given a module and options of all cases, return those that it takes."""
    names = {name for cls in (model.Repository, *TAKES.get(module, ())) for name in model.options_of(cls)}
    return {name: value for name, value in options.items() if name in names}


VOLATILE = re.compile(
    r"duration|finished|created|newest|newest_age|oldest|size|average_.*|.*_size|freed|growth|at|seconds|.*_seconds"
    r"|verified|levels"
)


def normal(value: Any, repository: Path) -> Any:
    """Given a part of a result, return it without what two runs must differ in: place, times and sizes."""
    if isinstance(value, dict):
        return {name: None if VOLATILE.fullmatch(name) else normal(value[name], repository) for name in sorted(value)}
    if isinstance(value, list):
        items = [normal(item, repository) for item in value]
        # Backups are in the order of their time.
        return sorted(items, key=json.dumps) if items and isinstance(items[0], dict) else items
    if isinstance(value, str):
        text = value.replace(str(repository), "REPOSITORY")
        text = re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2}", "TIME", text)
        text = re.sub(r"fronts_(module|command)", MINE, text)
        text = re.sub(r"pgkeep_restore_[0-9a-f]+|/proc/self/fd/[0-9]+", "...", text)
        return re.sub(r"\.inprogress-[0-9a-f]+|[0-9][0-9dhms. ]* old|[0-9.]+ k?B in [0-9.]+s", "...", text)
    return value


class Playbook:
    """Runs tasks through ansible-playbook."""

    def __init__(self, directory: Path, **defaults: Any) -> None:
        self.directory, self.defaults, self.output = directory, defaults, ""

    def play(self, *tasks: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Given modules and their options (and check), return the results of the tasks."""
        written = []
        for module, given in tasks:
            options = {name: value for name, value in of_front(given, "module").items() if name != "check"}
            written.append({
                f"pgkeep.backup.{module}": {**accepted(module, self.defaults), **options},
                "check_mode": bool(given.get("check")),
                "diff": True,
            })  # fmt: skip
        done = run_tasks(self.directory, written, "-v", PGHOST="/nowhere")
        self.output = done.stdout
        return results(done, len(tasks))


@pytest.fixture(scope="module")
def both(
    program: Path, debian_server: Server, samples: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[dict[str, Any], Done, Path, Path]]]:
    """What the module and the command made of each case, each in a repository of its own."""
    if not shutil.which("bwrap"):
        pytest.skip("needs bwrap, which is not installed")
    directory = tmp_path_factory.mktemp("fronts")
    keeper = Keeper(program, debian_server, directory / "command")
    place = directory / "module"
    work_dir = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))  # short enough for a socket below it
    connection = {
        "login_unix_socket": str(debian_server.socket_dir),
        "login_port": debian_server.port,
        "bin_dir": str(debian_server.bindir),
        "reserve": "0",
        "work_dir": str(work_dir),
    }
    playbook = Playbook(directory, repository=str(place), **connection)
    try:
        results = playbook.play(*((module, options) for _unused, module, options in CASES))
        yield {
            name: (
                result,
                keeper.run(
                    "stats" if name == FIGURES else COMMANDS[module],
                    "--json",
                    *flags({**accepted(module, connection), **of_front(options, "command")}),
                ),
                place,
                keeper.repository,
            )
            for (name, module, options), result in zip(CASES, results)
        }
        assert list(work_dir.iterdir()) == []
    finally:
        shutil.rmtree(work_dir)
        for name in debian_server.psql("SELECT datname FROM pg_database WHERE datname ~ '^fronts_'").splitlines():
            debian_server.psql(f"DROP DATABASE {quote_identifier(name)} WITH (FORCE)")


@pytest.mark.parametrize("case", [name for name, _unused, _unused in CASES])
def test_a_module_and_the_command_agree(both: dict[str, tuple[dict[str, Any], Done, Path, Path]], case: str) -> None:
    module, command, place_of_module, place_of_command = both[case]
    errors = re.findall(r"^pgkeep: error: (.*)$", command.err, re.MULTILINE)
    warnings = re.findall(r"^pgkeep: warning: (.*)$", command.err, re.MULTILINE)
    assert module["failed"] is (command.code != 0)
    said = module.get("msg", "") if module["failed"] else ""  # else it is what was done, which --json does not say
    assert normal(said, place_of_module) == normal("; ".join(errors), place_of_command)
    assert normal(module.get("warnings", []), place_of_module) == normal(warnings, place_of_command)
    if command.out:
        result = command.json
        if case == FIGURES:
            module = {**module, "backups": []}
        assert module.keys() - {"changed", "failed", "msg", "warnings", "diff", "invocation"} == result.keys()
        assert normal({name: module[name] for name in result}, place_of_module) == normal(result, place_of_command)
    else:
        assert command.code in (1, 2)


def test_the_cases_reach_what_they_are_for(both: dict[str, tuple[dict[str, Any], Done, Path, Path]]) -> None:
    statuses = {
        name: [item["status"] for item in result.get("databases", [])] for name, (result, *_unused) in both.items()
    }
    assert statuses["a plan"] == ["planned", "planned"]
    assert statuses["a backup"] == ["done", "done"]
    assert statuses["one that is not needed"] == ["fresh", "fresh"]
    assert statuses["some that fail"] == ["failed", "done", "failed"]
    assert statuses["databases by pattern"] == ["failed", "done"]
    changed = {name: result["changed"] for name, (result, *_unused) in both.items()}
    assert [name for name, is_changed in changed.items() if is_changed] == [
        "a plan", "a backup", "a partial one", "a marked one", "some that fail", "databases by pattern",
        "a plan of a restore", "a restore", "a plan of one in place", "one in place", "a part",
        "checksums", "archives", "a plan of a drill", "a drill",
        "a plan of a prune", "a prune", "a drill with a wrong answer",
    ]  # fmt: skip
    commands = [item["command"] for item in both["a marked one"][0]["databases"]]
    assert any("--jobs=2" in command for command in commands)
    codes = {name: done.code for name, (_unused, done, *_unused) in both.items()}
    assert {name: code for name, code in codes.items() if code} == {
        "some that fail": 4, "databases by pattern": 4, "what cannot be meant": 2, "a value that is none": 2,
        "no list": 2, "one that nobody asked for": 2, "what is not there": 1, "no backup": 1,
        "a prune without a rule": 2, "a drill with a wrong answer": 1, "no drill": 2,
    }  # fmt: skip
    restores = {name: result.get("action") for name, (result, *_unused) in both.items() if "target" in result}
    assert restores == {
        "a plan of a restore": "create", "a restore": "create", "one that is not needed any more": "skip",
        "a plan of one in place": "replace", "one in place": "replace", "a part": "create",
    }  # fmt: skip
    verdicts = {
        name: {item["verdict"] for item in result["verifications"]}
        for name, (result, *_unused) in both.items()
        if "verifications" in result
    }
    assert verdicts == {
        "checksums": {"good"}, "archives": {"good"}, "a plan of a drill": {"planned"}, "a drill": {"good"},
        "a drill with a wrong answer": {"unexpected"},
    }  # fmt: skip
    drilled = {item["database"]: item["drill"] for item in both["a drill"][0]["verifications"]}
    assert drilled.keys() == {"sample", "@globals"}
    assert drilled["sample"]["compared"]["rows"] > 3000
    assert [check["passed"] for check in drilled["sample"]["checks"]] == [True]


@pytest.fixture
def place_of_another() -> Iterator[Path]:
    """A repository that belongs to the user nobody."""
    parent = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    parent.chmod(0o755)
    (parent / "repository").mkdir(mode=0o700)
    shutil.chown(parent / "repository", "nobody")
    yield parent / "repository"
    shutil.rmtree(parent)


@pytest.mark.needs_root
def test_a_module_that_runs_as_root_works_as_the_owner_and_leaves_nothing_else(
    debian_server: Server,
    samples: dict[str, str],
    place_of_another: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = place_of_another.with_name("tmp")  # where Ansible unpacks the module
    scratch.mkdir()
    scratch.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(scratch))
    playbook = Playbook(
        tmp_path,
        repository=str(place_of_another),
        login_host="127.0.0.1",
        login_port=debian_server.port,
        login_password=debian_server.password,
        bin_dir=str(debian_server.bindir),
        reserve="0",
    )
    results = playbook.play(
        ("pg_backup", {"databases": ["sample"]}),
        ("pg_backup", {"databases": ["sample", "missing"], "format": "directory"}),
        ("pg_backup_info", {"checksum": True}),
        ("pg_backup_prune", {"keep_last": 1}),
        ("pg_backup_verify", {"level": "restore", "latest": True}),
        ("pg_backup_restore", {"database": "sample", "target": "as_the_owner"}),
    )
    debian_server.psql("DROP DATABASE IF EXISTS as_the_owner")
    assert [result["failed"] for result in results] == [False, True, False, False, False, False], playbook.output
    assert results[1]["msg"] == "missing: there is no such database"
    assert len(results[3]["deleted"]) == 2
    assert len(re.findall(r"^-DELETE  main/", playbook.output, re.MULTILINE)) == 2
    assert {path.owner() for path in (place_of_another, *place_of_another.rglob("*"))} == {"nobody"}
    assert list(scratch.iterdir()) == []
    assert debian_server.password not in json.dumps(results)


# --- one place for every default ---

CLASSES = (
    model.Connection, model.Repository, model.Location, model.Scope, model.Filter, model.Selection, model.DumpOptions,
    model.RunOptions, model.StandbyOptions, model.Policy, model.ListingOptions, model.PruneOptions, model.VerifyOptions,
    model.EncryptionOptions, model.Decryption, model.DrillOptions, model.Repository, model.Choice, model.RestoreOptions,
    model.AdoptOptions, model.LogOptions, model.SyncOptions, model.AtTarget, model.ReceiveOptions,
)  # fmt: skip
# One name may mean different things to different commands.
OPTIONS: dict[str, list[model.Option]] = {}
for cls in CLASSES:
    for name, option in model.options_of(cls).items():
        OPTIONS.setdefault(name, []).append(option)


def test_the_command_line_has_no_default_of_its_own_and_offers_what_the_model_allows() -> None:
    parser = command_line.parser()
    (subparsers,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    seen = set()
    for command in subparsers.choices.values():
        for action in command._actions:
            if action.dest not in OPTIONS or not action.option_strings:
                continue
            seen.add(action.dest)
            text = (action.help or "").replace("%%", "%")
            (option,) = {item for item in OPTIONS[action.dest] if text.startswith(item.help)}
            assert action.default is argparse.SUPPRESS
            assert tuple(action.choices or ()) == option.choices
            shown = "" if option.default in (None, "", (), False) else f" Default: {option.default}."
            assert text.removesuffix(" Repeatable.") == option.help + shown
    assert seen == OPTIONS.keys() - {"login_password", "databases"}


def test_the_schema_of_a_job_and_the_argument_specs_have_the_models_defaults() -> None:
    properties = job_schema()["properties"]
    for cls in JOB_CLASSES:
        for name, option in model.options_of(cls).items():
            default = list(option.default) if isinstance(option.default, tuple) else option.default
            assert properties[name].get("default") == default
            assert argument_spec(cls)[name].get("default") == default


def is_default(name: object, value: ast.AST | None) -> bool:
    """Given a name and an expression, return whether they are an option and what it is when nobody says it."""
    if not isinstance(name, str) or name not in OPTIONS or not isinstance(value, ast.Constant):
        return False
    return value.value not in (None, "", False, 0) and value.value in [option.default for option in OPTIONS[name]]


def written_again(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Given a source, yield each place where an option gets its default once more."""
    for node in ast.walk(tree):
        pairs: list[tuple[object, ast.AST | None]] = []
        if isinstance(node, ast.Dict):
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values) if isinstance(key, ast.Constant)]
        elif isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.arguments):
            pairs = [
                (item.arg, value)
                for item, value in zip(reversed([*node.posonlyargs, *node.args]), reversed(node.defaults))
            ]
            pairs += [(item.arg, value) for item, value in zip(node.kwonlyargs, node.kw_defaults)]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            pairs = [(getattr(target, "id", None), node.value) for target in targets]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
            pairs = [(getattr(node.args[0], "value", None), node.args[1])] if len(node.args) == 2 else []
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            named = [item.value for part in node.values for item in ast.walk(part) if isinstance(item, ast.Constant)]
            pairs = [(name, node.values[-1]) for name in named]
        yield from ((getattr(node, "lineno", 0), str(name)) for name, value in pairs if is_default(name, value))


@pytest.mark.parametrize(
    "path",
    sorted(path for path in PLUGINS.rglob("*.py") if path.name != "model.py"),
    ids=lambda path: str(path.relative_to(PLUGINS)),
)
def test_no_default_is_written_again(path: Path) -> None:
    assert list(written_again(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "text",
    [
        'x = {"login_port": 5432}',
        "f(format='custom')",
        "def f(*, wait, reserve='500MB'): pass",
        "def f(instance='main'): pass",
        "compression = 'auto'",
        "raw.get('deadline', '24h')",
        "raw.get('jobs') or 1",
        "raw['jobs'] or 1",
    ],
)
def test_the_search_for_defaults_finds_them(text: str) -> None:
    assert list(written_again(ast.parse(text))) != []


def test_the_modules_are_documentation_and_a_call() -> None:
    for path in (PLUGINS / "modules").glob("pg_*.py"):
        body = ast.parse(path.read_text()).body
        code = [node for node in body if not isinstance(node, (ast.ImportFrom, ast.Assign))]
        if path.name != "pg_backup_command.py":  # an action plugin's
            main, guard = code
            assert isinstance(main, ast.FunctionDef)
            assert len(main.body) == 1
            assert isinstance(guard, ast.If)
