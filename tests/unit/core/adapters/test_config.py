# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import config
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import USAGE, ConfigurationError


class Host:
    """A configuration directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.jobs = directory / "jobs.d"
        self.jobs.mkdir()

    def write(self, name: str, content: Any, mode: int = 0o640) -> str:
        """Given defaults or a job's name and its content (text, bytes or a document), write the file."""
        path = self.jobs.parent / "defaults.json" if name == "defaults" else self.jobs / f"{name}.json"
        return self._write(path, content, mode)

    def target(self, name: str, content: Any) -> str:
        """Given a target's name and its content, write its file."""
        path = self.jobs.parent / "targets.d" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        return self._write(path, content, 0o640)

    def _write(self, path: Path, content: Any, mode: int) -> str:
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return str(path)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def failure_of(host: Host, name: str = "main") -> str:
    with pytest.raises(ConfigurationError) as caught:
        config.load_job(host.directory, name)
    assert caught.value.exit_code == USAGE
    return str(caught.value)


# --- what is there ---


def test_a_job_wins_over_the_defaults_and_remarks_are_left_out(host: Host) -> None:
    host.write("defaults", {"repository": "/srv", "keep_last": 5, "wait": "1m", "comment": "for all"})
    host.write("main", {"$schema": "x", "comment": "mine", "wait": "5m", "keep_last": None, "databases": ["shop"]})
    assert config.load_job(host.directory, "main") == {
        "repository": "/srv",
        "keep_last": None,
        "wait": "5m",
        "databases": ["shop"],
    }


def test_defaults_are_optional(host: Host) -> None:
    host.write("main", {"repository": "/srv"})
    assert config.load_job(host.directory, "main") == {"repository": "/srv"}


def test_jobs_are_the_json_files_that_are_not_hidden(host: Host) -> None:
    for name in ("b-2", "a_1", "C", ".a_1.json.swp"):
        host.write(name, {"repository": "/srv"})
    (host.jobs / "README.md").touch()
    (host.jobs / "a_1.json~").touch()
    assert config.job_names(host.directory) == ["C", "a_1", "b-2"]
    assert list(config.load_all(host.directory)) == ["C", "a_1", "b-2"]


def test_a_host_without_jobs_has_no_jobs(tmp_path: Path) -> None:
    assert config.job_names(str(tmp_path)) == []
    assert config.load_all(str(tmp_path)) == {}
    assert config.check_directory(str(tmp_path)) == []


def test_a_link_to_a_file_is_a_file(host: Host, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text('{"repository": "/srv"}')
    (host.jobs / "main.json").symlink_to(target)
    assert config.load_job(host.directory, "main") == {"repository": "/srv"}


# --- what is not there ---


def test_a_missing_directory_is_named_with_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none is not a directory: make it, with a file jobs\.d/NAME\.json"):
        config.load_all(str(tmp_path / "none"))
    (problem,) = config.check_directory(str(tmp_path / "none"))
    assert "is not a directory" in str(problem)


def test_a_job_that_does_not_exist_is_answered_with_those_that_do(host: Host) -> None:
    assert failure_of(host, "mian") == f"there is no job mian: {host.jobs} has no jobs"
    host.write("main", {"repository": "/srv"})
    host.write("other", {"repository": "/srv"})
    assert failure_of(host, "mian") == "there is no job mian: there are main, other: did you mean main?"


@pytest.mark.parametrize("name", ["", ".", "../defaults", "a/b", "a b", "main\n", "main.json", "-main"])
def test_a_name_cannot_leave_the_directory(host: Host, name: str) -> None:
    host.write("defaults", {"repository": "/srv"})
    assert (
        failure_of(host, name)
        == f"{name!r} is not the name of a job: letters, digits, _ and - are allowed, and no - at the beginning"
    )


@pytest.mark.parametrize("name", ["my job", "-x"])
def test_a_file_whose_name_cannot_be_a_job_is_a_problem(host: Host, name: str) -> None:
    host.write(name, {"repository": "/srv"})
    allowed = "letters, digits, _ and - are allowed, and no - at the beginning"
    expected = f"{host.jobs}: {name!r} is not the name of a job: {allowed}; rename the file"
    assert [str(problem) for problem in config.check_directory(host.directory)] == [expected]
    with pytest.raises(ConfigurationError, match="rename the file"):
        config.job_names(host.directory)


def test_a_required_option_may_stand_in_either_file_but_must_stand_in_one(host: Host) -> None:
    path = host.write("main", {})
    assert failure_of(host).startswith(f"{path}: repository is not set: Directory of the repository.")
    assert config.check_file(path) == []


def test_defaults_can_be_loaded_alone(host: Host) -> None:
    assert config.load_defaults(host.directory) == {}
    path = host.write("defaults", {"repository": "/srv", "comment": "x"})
    assert config.load_defaults(host.directory) == {"repository": "/srv"}
    host.write("defaults", {"jobs": 0})
    with pytest.raises(ConfigurationError, match=f"{path}: jobs is 0: must be 1 or more"):
        config.load_defaults(host.directory)


# --- files that cannot be used ---


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": 1,\n "b" 2}', ":2:6: not JSON: Expecting ':' delimiter"),
        ("", ":1:1: not JSON: Expecting value"),
        ('{"jobs": 1} trailing', ":1:13: not JSON: Extra data"),
        ('{"jobs": 1, "jobs": 2}', ": jobs stands there twice: remove one"),
        ('{"jobs": NaN}', ": NaN is not JSON"),
        (b'{"pin":\n"\xff"}', ":2: not UTF-8"),
        ("[" * 300_000, ": nested too deeply"),
        ('{"pin": "' + "x" * config.MAX_BYTES + '"}', " is larger than 1 MiB, which no configuration is"),
        ("[]", ": is a list: must be of type object"),
        ("null", ": is null: must be of type object"),
    ],
)
def test_a_broken_file_is_one_clear_sentence_with_the_place(host: Host, content: str | bytes, reason: str) -> None:
    path = host.write("main", content)
    assert failure_of(host) == path + reason
    assert [str(problem) for problem in config.check_file(path)] == [path + reason]


def test_a_number_of_a_million_digits_is_refused(host: Host) -> None:
    host.write("main", '{"repository": "/srv", "jobs": ' + "9" * 100_000 + "}")
    assert failure_of(host)


def test_a_fifo_is_refused_and_not_waited_for(host: Host) -> None:
    os.mkfifo(host.jobs / "main.json")
    assert failure_of(host) == f"{host.jobs}/main.json is not a regular file"


def test_a_directory_and_a_dangling_link_are_refused(host: Host) -> None:
    (host.jobs / "main.json").mkdir()
    assert failure_of(host) == f"{host.jobs}/main.json cannot be read: Is a directory"
    (host.jobs / "other.json").symlink_to("nowhere")
    assert failure_of(host, "other") == f"{host.jobs}/other.json cannot be read: No such file or directory"


def test_broken_defaults_break_every_job(host: Host) -> None:
    host.write("main", {"repository": "/srv"})
    path = host.write("defaults", {"keep_lst": 3})
    assert failure_of(host) == f"{path}: keep_lst is not known: did you mean keep_last?"


# --- what files say ---


def test_all_problems_of_all_files_are_reported_at_once(host: Host) -> None:
    defaults = host.write("defaults", {"wait": 5})
    a = host.write("a", {"formt": "custom", "jobs": 0})
    b = host.write("b", "{")
    found = [str(problem) for problem in config.check_directory(host.directory)]
    assert [sentence.split(" ")[0] for sentence in found] == [f"{defaults}:", f"{a}:", f"{a}:", f"{b}:1:2:"]
    with pytest.raises(ConfigurationError) as caught:
        config.load_all(host.directory)
    assert str(caught.value).splitlines() == found


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({"jobs": 4}, "jobs is 4 but format is custom: parallel jobs need format directory"),
        ({"pin": "x", "pin_until": "2025-02-30"}, "pin_until: '2025-02-30' is not a time that exists"),
        ({"compression": "zstd:99"}, "compression is 'zstd:99': zstd has the levels 1 to 19"),
        ({"include": ["("]}, "include has '(', which is not a regular expression: missing ), unterminated"),
        ({"keep_last": 0}, "the retention policy has no rule"),
        ({"timezone": "Europe/Nowhere"}, "timezone is 'Europe/Nowhere'"),
    ],
)
def test_a_job_is_checked_as_a_whole_with_its_defaults(host: Host, job: dict[str, Any], sentence: str) -> None:
    host.write("defaults", {"repository": "/srv"})
    path = host.write("main", job)
    assert failure_of(host).startswith(f"{path}: {sentence}")
    assert [str(problem) for problem in config.check_directory(host.directory)] == [failure_of(host)]


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ("@daily", "not a schedule: did you mean daily?"),
        ("0  2 * * *", "there must be one space between the fields, and nothing around them"),
        ("0 2 * * *\n", "there must be one space between the fields, and nothing around them"),
    ],
)
def test_a_schedule_that_is_none_is_said_clearly_once_for_its_file(host: Host, schedule: str, sentence: str) -> None:
    path = host.write("defaults", {"repository": "/srv", "backup_schedule": schedule})
    host.write("main", {})
    host.write("other", {"backup_schedule": "daily"})
    (problem,) = config.check_directory(host.directory)
    assert str(problem).startswith(f"{path}: backup_schedule is {schedule!r}: {sentence}")
    assert config.check_file(path) == [problem]
    with pytest.raises(ConfigurationError, match="backup_schedule is"):
        config.load_defaults(host.directory)


def test_a_password_that_others_can_read_is_refused_with_the_cure(host: Host) -> None:
    content = {"repository": "/srv", "login_password": "hunter2"}
    path = host.write("main", content, mode=0o640)
    sentence = f"{path}: login_password can be read by other users of this host: run chmod 0600 {path}"
    assert failure_of(host) == sentence
    assert [str(problem) for problem in config.check_file(path)] == [sentence]
    host.write("main", content, mode=0o600)
    assert config.load_job(host.directory, "main") == content


def test_no_message_contains_the_password(host: Host) -> None:
    host.write("main", {"login_password": "hunter2\n", "login_pasword": "hunter2", "jobs": 0})
    assert "hunter2" not in failure_of(host)


# --- targets ---

SHELF = {"type": "directory", "path": "/mnt/shelf"}
VAULT = {"type": "rsync", "host": "vault", "keep_daily": 14, "comment": "ours", "$schema": "x"}


def sentences(host: Host) -> list[str]:
    """Return what check-config says, without the directory; a job that names targets says what is in it."""
    return [str(problem).replace(f"{host.directory}/", "") for problem in config.check_directory(host.directory)]


def test_targets_are_read_by_name_without_remarks(host: Host) -> None:
    assert config.target_names(host.directory) == []
    host.target("vault", VAULT)
    host.target("shelf", SHELF)
    host.target(".shelf.json.swp", "{")
    assert config.target_names(host.directory) == ["shelf", "vault"]
    assert config.load_target(host.directory, "vault") == {"type": "rsync", "host": "vault", "keep_daily": 14}
    host.write("main", {"repository": "/srv", "targets": ["shelf", "vault"]})
    assert config.load_job(host.directory, "main")["targets"] == ["shelf", "vault"]
    assert sentences(host) == []


def test_a_target_that_does_not_exist_is_answered_with_those_that_do(host: Host) -> None:
    with pytest.raises(ConfigurationError, match=r"^there is no target shlef: .*/targets.d has no targets$"):
        config.load_target(host.directory, "shlef")
    host.target("shelf", SHELF)
    with pytest.raises(ConfigurationError, match=r"^there is no target shlef: there are shelf: did you mean shelf\?$"):
        config.load_target(host.directory, "shlef")
    with pytest.raises(ConfigurationError, match=r"^'../shelf' is not the name of a target: letters, digits"):
        config.load_target(host.directory, "../shelf")
    host.target("my shelf", SHELF)
    with pytest.raises(
        ConfigurationError, match=r"targets.d: 'my shelf' is not the name of a target.*; rename the file"
    ):
        config.target_names(host.directory)
    assert "rename the file" in sentences(host)[0]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ({"path": "/mnt/shelf"}, "type is not set"),
        ({"type": "ssh"}, 'type is "ssh": must be one of directory, rsync, rclone'),
        ({**SHELF, "pth": "x"}, "pth is not known: did you mean path?"),
        ({"type": "directory"}, "path is not set: a target of type directory needs it"),
        ({**SHELF, "host": "vault"}, "host is set: a target of type directory does not know it: leave it out"),
        ({**SHELF, "bandwidth": 5}, "bandwidth is 5: must be of type string"),
        ({**SHELF, "deadline": "soon"}, 'deadline is "soon": must match'),
        ({**SHELF, "repository": "/srv"}, "repository is not known"),
        ({**SHELF, "keep_minimum": 3}, "the retention policy has no rule"),
        ({**SHELF, "keep_last": 3, "timezone": "Mars"}, "timezone is 'Mars'"),
        (
            {**SHELF, "keep_last": 3, "require_copies": 1},
            "require_copies is set, and a prune of the target looks at no",
        ),
        ("[]", "is a list: must be of type object"),
        ("{", ":1:2: not JSON"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused_with_its_file(host: Host, target: Any, sentence: str) -> None:
    path = host.target("shelf", target)
    host.write("main", {"repository": "/srv", "targets": ["shelf"]})
    host.write("other", {"repository": "/other"})
    (problem,) = map(str, config.check_directory(host.directory))
    assert problem.startswith(path)
    assert sentence in problem
    assert [str(item) for item in config.check_file(path)] == [problem]
    assert failure_of(host) == problem
    with pytest.raises(ConfigurationError, match=r"shelf\.json"):
        config.load_target(host.directory, "shelf")
    assert config.load_job(host.directory, "other") == {"repository": "/other"}  # has nothing to do with it


def test_a_job_or_the_defaults_that_name_what_does_not_exist_are_told_so_once(host: Host) -> None:
    host.target("shelf", SHELF)
    host.target("vault", VAULT)
    host.write("defaults", {"repository": "/srv", "targets": ["valt"]})
    host.write("a", {})
    host.write("b", {"targets": ["shelf", "x", "shelf"]})
    host.write("c", {"targets": []})
    host.write("d", {"targets": ["vault"]})
    known = "there are shelf, vault"
    assert sentences(host) == [
        f"defaults.json: targets[0] is 'valt', but there is no such target: {known}: did you mean vault?",
        f"jobs.d/b.json: targets[1] is 'x', but there is no such target: {known}",
        "jobs.d/b.json: targets[2] is 'shelf', which stands there already: remove one",
    ]
    assert failure_of(host, "a") == f"{host.directory}/{sentences(host)[0]}"
    assert failure_of(host, "b").splitlines() == [f"{host.directory}/{text}" for text in sentences(host)[1:]]
    assert config.load_job(host.directory, "c")["targets"] == []
    assert config.load_job(host.directory, "d")["targets"] == ["vault"]
    with pytest.raises(ConfigurationError) as caught:
        config.load_all(host.directory)
    assert str(caught.value).splitlines() == [f"{host.directory}/{text}" for text in sentences(host)]


def test_a_job_without_targets_does_not_look_at_any(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.target("my shelf", "{")
    host.write("main", {"repository": "/srv"})
    monkeypatch.delattr(config, "target_schema")
    assert config.load_job(host.directory, "main") == {"repository": "/srv"}


def test_what_is_no_list_of_names_is_said_once(host: Host) -> None:
    host.write("main", {"repository": "/srv", "targets": "shelf"})
    host.write("other", {"repository": "/srv", "targets": [5]})
    assert sentences(host) == [
        'jobs.d/main.json: targets is "shelf": must be of type array',
        "jobs.d/other.json: targets[0] is 5: must be of type string",
    ]


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"type": "directory", "keep_last": 1}, "path is not set: a target of type directory needs it"),
        ({"host": "vault", "path": "x"}, "type is not set"),
        ({"databases": ["shop"], "path": "x"}, "path is not known"),
        ({"keep_last": 1}, ""),
        ({}, ""),
    ],
)
def test_a_file_elsewhere_is_taken_for_what_its_options_say(
    tmp_path: Path, document: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(document))
    found = "".join(map(str, config.check_file(str(path))))
    assert sentence in found
    assert bool(found) == bool(sentence)


@pytest.mark.parametrize(("folder", "refused"), [("targets.d", "databases"), ("jobs.d", "host")])
def test_a_file_in_its_directory_is_what_belongs_there(
    tmp_path: Path, folder: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "x.json").write_text('{"databases": ["shop"], "host": "vault", "type": "rsync"}')
    monkeypatch.chdir(tmp_path / folder)
    found = {problem.key for problem in config.check_file("x.json")}
    assert refused in found
    assert found < {"databases", "host", "type"}


def test_a_target_that_goes_away_while_a_job_is_read_that_named_it_is_no_failure(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The removal happens in the very moment between the two files, where no test would hit it by chance."""
    path = Path(host.target("shelf", SHELF))
    host.write("main", {"repository": "/srv", "targets": ["shelf"]})
    scan = config._scan_targets

    def removed_first(directory: str) -> Any:
        monkeypatch.undo()
        host.write("main", {"repository": "/srv"})
        path.unlink()
        return scan(directory)

    for load in (lambda: config.load_job(host.directory, "main"), lambda: config.load_all(host.directory)["main"]):
        path.write_text(json.dumps(SHELF))
        host.write("main", {"repository": "/srv", "targets": ["shelf"]})
        monkeypatch.setattr(config, "_scan_targets", removed_first)
        assert load() == {"repository": "/srv"}
