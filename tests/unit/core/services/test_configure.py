# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A configuration on a real disk: what is written, what stays, what is refused, and what a reader sees meanwhile."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pgkeep.backup.plugins.module_utils._core.adapters import config, config_files
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.configuration import HIDDEN, MARK
from ansible_collections.pgkeep.backup.plugins.module_utils._core.domain.errors import ConfigurationError
from ansible_collections.pgkeep.backup.plugins.module_utils._core.services.configure import Configured, configure

SECRET = "s3cret:\\marker"
LINE = {"host": "*", "port": "*", "database": "*", "user": "*"}
Snapshot = dict[str, tuple[int, int, str]]


class Place:
    """A directory for a configuration, and its name as a user writes it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self.jobs = directory / "jobs.d"

    def configure(self, check: bool = False, **options: Any) -> Configured:
        """Given options, make the configuration; whatever is said about it has no secret in it."""
        raw = {"config_dir": str(self.path), "owner": getpass.getuser(), **options}
        result = configure(raw, check, lambda: datetime.now(timezone.utc))
        assert "s3cret" not in f"{result!r} {result.to_json()} {result.diff} {result.warnings}"
        return result

    def refuse(self, **options: Any) -> str:
        """Given options that cannot be meant, return what is said, the same with and without check mode."""
        before = self.snapshot()
        said = []
        for check in (True, False):
            with pytest.raises(ConfigurationError) as caught:
                self.configure(check, **options)
            said.append(str(caught.value))
        assert said[0] == said[1]
        assert "s3cret" not in said[0]
        assert self.snapshot() == before
        return said[0]

    def snapshot(self) -> Snapshot:
        """Return mode, time of modification and content of everything that is there."""
        return {
            str(path.relative_to(self.path)): (
                path.lstat().st_mode,
                path.lstat().st_mtime_ns,
                path.read_text() if path.is_file() else "",
            )
            for path in self.path.rglob("*")
        }

    def by_hand(self, name: str, content: Any, mode: int = 0o640) -> Path:
        """Given a name below the directory and what to write, write it as a person would."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        path.chmod(mode)
        return path

    def read(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.path / name).read_text())
        return document

    def names(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*")} if self.path.exists() else set()

    def mode(self, name: str) -> int:
        return (self.path / name).stat().st_mode & 0o7777


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "etc")


def job(name: str = "main", **options: Any) -> dict[str, Any]:
    return {"name": name, "wait": None, **options}  # Ansible says None for what nobody said


def target(name: str = "shelf", **options: Any) -> dict[str, Any]:
    return {"name": name, "type": "directory", "path": "/mnt/shelf", "host": None, **options}


# --- what is written ---


def test_a_configuration_is_written_once_and_check_mode_says_so(place: Place) -> None:
    options = {
        "defaults": {"repository": "/srv", "keep_last": None},
        "jobs": [job(instance="main"), job("other")],
        "passwords": [{**LINE, "password": SECRET}],
    }
    planned = place.configure(check=True, **options)
    assert not place.path.exists()
    done = place.configure(**options)
    assert planned == done
    assert done.to_json() == {
        "config_dir": str(place.path),
        "jobs": ["main", "other"],
        "targets": [],
        "written": [
            str(place.path / name) for name in ("", "jobs.d", "pgpass", "defaults.json", "jobs.d/main.json", "jobs.d/other.json")
        ],
        "removed": [],
    }  # fmt: skip
    assert place.read("jobs.d/main.json") == {"comment": MARK, "instance": "main"}
    passfile = str(place.path / "pgpass")
    assert config.load_all(str(place.path)) == {
        "main": {"repository": "/srv", "instance": "main", "passfile": passfile},
        "other": {"repository": "/srv", "passfile": passfile},
    }
    assert (place.path / "pgpass").read_text().endswith("changes here are lost.\n*:*:*:*:s3cret\\:\\\\marker\n")
    modes = {name: oct(place.mode(name)) for name in place.names()}
    assert modes.pop("jobs.d") == "0o750"
    assert modes.pop("pgpass") == "0o600"
    assert set(modes.values()) == {"0o640"}
    before = place.snapshot()
    for check in (True, False):
        again = place.configure(check=check, **options)
        assert (again.changed, again.written, again.removed) == (False, (), ())
        assert again.diff["before"] == again.diff["after"] == ""
    assert place.snapshot() == before


def test_only_what_differs_is_written_and_shown(place: Place) -> None:
    place.configure(defaults={"repository": "/srv"}, jobs=[job(), job("other", login_password=SECRET)])
    assert place.mode("jobs.d/other.json") == 0o600
    before = place.snapshot()
    done = place.configure(defaults={"repository": "/srv"}, jobs=[job(), job("other", login_password="s3cret2")])
    path = str(place.path / "jobs.d/other.json")
    assert done.written == (path,)
    assert {name for name, state in place.snapshot().items() if state != before[name]} == {
        "jobs.d",
        "jobs.d/other.json",
    }
    assert f'"login_password": "{HIDDEN}"' in done.diff["before"]
    assert '"login_password": "(hidden, and another one than before)"' in done.diff["after"]
    assert [line.split(" ")[0] for line in done.diff["after"].splitlines() if line.startswith("/")] == [path]


def test_owner_and_mode_are_part_of_what_is_there(place: Place) -> None:
    options = {"jobs": [job(repository="/srv")]}
    place.configure(**options)
    (place.jobs / "main.json").chmod(0o666)
    place.jobs.chmod(0o777)
    done = place.configure(**options)
    assert done.written == (str(place.jobs), str(place.jobs / "main.json"))
    assert "0777" in done.diff["before"]
    assert "0666" in done.diff["before"]
    assert (place.mode("jobs.d"), place.mode("jobs.d/main.json")) == (0o750, 0o640)
    assert not place.configure(**options).changed


def test_a_job_that_names_a_password_file_keeps_it(place: Place) -> None:
    passwords = [{**LINE, "password": SECRET}]
    place.configure(jobs=[job(repository="/srv", passfile="/own"), job("b", repository="/srv")], passwords=passwords)
    loaded = config.load_all(str(place.path))
    assert [item["passfile"] for item in loaded.values()] == [str(place.path / "pgpass"), "/own"]
    place.configure(defaults={"passfile": "/mine"}, jobs=[job(repository="/srv")], passwords=passwords)
    assert config.load_all(str(place.path))["main"]["passfile"] == "/mine"


# --- what goes ---


def test_what_is_not_asked_for_any_more_goes_and_what_was_written_by_hand_stays(place: Place) -> None:
    place.by_hand("jobs.d/mine.json", {"repository": "/mine"})
    place.by_hand("README", "notes")
    passwords = [{**LINE, "password": SECRET}]
    place.configure(defaults={"repository": "/srv"}, jobs=[job(), job("old")], passwords=passwords)
    done = place.configure(jobs=[job(repository="/srv")])
    assert set(done.removed) == {str(place.path / name) for name in ("jobs.d/old.json", "defaults.json", "pgpass")}
    assert place.names() == {"README", "jobs.d", "jobs.d/main.json", "jobs.d/mine.json"}
    gone = place.configure(state="absent")
    assert set(gone.removed) == {str(place.jobs / "main.json")}
    assert place.names() == {"README", "jobs.d", "jobs.d/mine.json"}
    assert not place.configure(state="absent").changed


def test_absent_removes_the_directories_as_well_where_nothing_else_is_in_them(place: Place) -> None:
    elsewhere = place.path.parent / "pgpass"
    passwords = [{**LINE, "password": SECRET}]
    place.configure(jobs=[job(repository="/srv")], passwords=passwords, passfile=str(elsewhere))
    assert elsewhere.stat().st_mode & 0o777 == 0o600
    planned = place.configure(check=True, state="absent")
    assert elsewhere.exists()
    done = place.configure(state="absent")
    assert planned == done
    assert not elsewhere.exists()
    assert not place.path.exists()
    assert not place.configure(state="absent").changed


def test_a_password_file_that_moves_leaves_nothing_behind(place: Place) -> None:
    elsewhere = place.path.parent / "pgpass"
    options = {"jobs": [job(repository="/srv")], "passwords": [{**LINE, "password": SECRET}]}
    place.configure(**options)
    assert place.configure(**options, passfile=str(elsewhere)).removed == (str(place.path / "pgpass"),)
    assert place.configure(**options).removed == (str(elsewhere),)
    assert not elsewhere.exists()


def test_a_password_file_that_is_not_ours_stays(place: Place) -> None:
    other = Place(place.path.parent / "other")
    other.configure(jobs=[job(repository="/srv")], passwords=[{**LINE, "password": SECRET}])
    by_hand = place.by_hand("pgpass", f"*:*:*:*:{SECRET}\n", 0o600)
    place.configure(jobs=[job(repository="/srv", passfile=str(other.path / "pgpass"))])
    place.configure(state="absent")
    assert by_hand.exists()
    assert (other.path / "pgpass").exists()


def test_what_a_killed_run_left_goes(place: Place) -> None:
    options = {"jobs": [job(repository="/srv")]}
    place.configure(**options)
    left = [place.by_hand(name, SECRET) for name in (".new-1", "jobs.d/.new-2")]
    assert set(place.configure(**options).removed) == set(map(str, left))
    assert place.names() == {"jobs.d", "jobs.d/main.json"}


def test_what_was_written_by_hand_gives_way_and_is_kept(place: Place) -> None:
    texts = {
        "defaults.json": json.dumps({"login_pasword": SECRET, "keep_days": 3}),
        "jobs.d/main.json": f'{{"login_password": "{SECRET}"',
        "pgpass": f"# {SECRET}\n*:*:*:*:{SECRET}\n",
    }
    for name, text in texts.items():
        place.by_hand(name, text, 0o600)
    options = {"defaults": {"repository": "/srv"}, "jobs": [job()], "passwords": [{**LINE, "password": SECRET}]}
    for number, end in ((1, ""), (2, "-2")):
        if number == 2:
            for name, text in texts.items():
                place.by_hand(name, text, 0o600)
        done = place.configure(**options)
        for name, text in texts.items():
            assert (place.path / f"{name}.before-ansible{end}").read_text() == text
            assert place.mode(f"{name}.before-ansible{end}") == 0o600
            assert sum(f"{place.path / name} was written by hand" in warning for warning in done.warnings) == 1
        assert not place.configure(**options).changed
    assert config.check_directory(str(place.path)) == []


def test_defaults_by_hand_count_where_none_are_said(place: Place) -> None:
    place.by_hand("defaults.json", {"repository": "/srv"})
    place.configure(jobs=[job()], passwords=[{**LINE, "password": SECRET}])
    assert place.read("defaults.json") == {"repository": "/srv"}
    assert config.load_job(str(place.path), "main")["passfile"] == str(place.path / "pgpass")


def test_a_link_gives_way_and_what_it_leads_to_stays(place: Place) -> None:
    place.configure(jobs=[job(repository="/srv")])
    target = place.by_hand("target", (place.jobs / "main.json").read_text())
    (place.jobs / "main.json").unlink()
    (place.jobs / "main.json").symlink_to(target)
    place.configure(jobs=[job(repository="/other")])
    assert not (place.jobs / "main.json").is_symlink()
    assert (place.jobs / "main.json.before-ansible").is_symlink()
    assert json.loads(target.read_text())["repository"] == "/srv"


# --- targets ---


def test_targets_are_written_with_the_jobs_that_name_them_and_go_with_them(place: Place) -> None:
    options = {
        "defaults": {"repository": "/srv", "targets": ["shelf"]},
        "jobs": [job()],
        "targets": [target(keep_daily=7), target("vault", type="rsync", path=None, host="vault")],
    }
    planned = place.configure(check=True, **options)
    done = place.configure(**options)
    assert planned == done
    names = (
        "",
        "jobs.d",
        "targets.d",
        "targets.d/shelf.json",
        "targets.d/vault.json",
        "defaults.json",
        "jobs.d/main.json",
    )
    assert done.written == tuple(str(place.path / name) for name in names)
    assert done.to_json()["targets"] == ["shelf", "vault"]
    assert place.read("targets.d/shelf.json") == {
        "comment": MARK, "type": "directory", "path": "/mnt/shelf", "keep_daily": 7,
    }  # fmt: skip
    assert (place.mode("targets.d"), place.mode("targets.d/shelf.json")) == (0o750, 0o640)
    assert '"path": "/mnt/shelf"' in done.diff["after"]
    assert not place.configure(**options).changed
    moved = place.configure(**{**options, "targets": [target(path="/mnt/other"), options["targets"][1]]})
    assert moved.written == (str(place.path / "targets.d/shelf.json"),)
    assert ("/mnt/other" in moved.diff["after"], "/mnt/other" in moved.diff["before"]) == (True, False)
    less = place.configure(defaults={"repository": "/srv"}, jobs=[job()])
    assert less.removed == tuple(str(place.path / f"targets.d/{name}.json") for name in ("shelf", "vault"))
    assert config.check_directory(str(place.path)) == []
    place.configure(**options)
    gone = place.configure(state="absent")
    assert gone.removed.index(str(place.path / "jobs.d/main.json")) < gone.removed.index(
        f"{place.path}/targets.d/shelf.json"
    )
    assert not place.path.exists()


def test_targets_by_hand_stay_and_one_of_the_same_name_is_kept(place: Place) -> None:
    place.by_hand("targets.d/vault.json", {"type": "rsync", "host": "vault"})
    place.configure(jobs=[job(repository="/srv", targets=["vault", "shelf"])], targets=[target()])
    place.configure(jobs=[job(repository="/srv", targets=["vault"])])
    assert {name for name in place.names() if name.startswith("targets.d/")} == {"targets.d/vault.json"}
    mine = {"repository": "/srv", "instance": "mine", "targets": ["vault"]}
    place.by_hand("jobs.d/mine.json", mine)
    done = place.configure(jobs=[job(repository="/srv")], targets=[target("vault")])
    assert place.read("targets.d/vault.json.before-ansible") == {"type": "rsync", "host": "vault"}
    assert "vault.json was written by hand, and gives way to Ansible's" in done.warnings[0]
    said = place.refuse(jobs=[job(repository="/srv")])  # a job by hand needs it
    assert f"{place.jobs}/mine.json: targets[0] is 'vault', but there is no such target" in said
    (warning,) = place.configure(state="absent").warnings
    assert "there is no such target" in warning


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": [target("a b")]}, "targets: 'a b' is not the name of a target"),
        ({"targets": [target(), target()]}, "targets: 'shelf' stands there twice: remove one"),
        ({"targets": [target(path="shelf")]}, "target shelf: path is 'shelf': it must be the absolute path"),
        ({"targets": [target(type=None)]}, "target shelf: type is not set"),
        ({"targets": [target(keep_minimum=2)]}, "target shelf: the retention policy has no rule"),
        (
            {"targets": [target()], "jobs": [job(repository="/srv", targets=["shlef"])]},
            "job main: targets[0] is 'shlef', but there is no such target: there are shelf: did you mean shelf?: correct",
        ),
        (
            {"defaults": {"targets": ["vault"]}, "jobs": [job(repository="/srv")]},
            "defaults: targets[0] is 'vault', but there is no such target",
        ),
    ],
)
def test_targets_that_cannot_be_meant_change_nothing(place: Place, options: dict[str, Any], message: str) -> None:
    assert message in place.refuse(**options)
    place.configure(jobs=[job(repository="/srv")])
    assert message in place.refuse(**options)


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": [job(repository="/srv", jobs=4)]}, "job main: jobs is 4 but format is custom"),
        ({"jobs": [job()]}, "job main: repository is not set"),
        ({"defaults": {"repository": "srv"}, "jobs": [job()]}, 'defaults: repository is "srv": must match'),
        ({"defaults": {"repository": "/srv", "wait": "soon"}}, 'defaults: wait is "soon": must match'),
        ({"jobs": [job("a b", repository="/srv")]}, "'a b' is not the name of a job"),
        ({"jobs": [job(repository="/srv"), job(repository="/srv")]}, "'main' stands there twice"),
        ({"jobs": [job(repository="/srv", login_password=SECRET + "\n")]}, "login_password contains a newline"),
        ({"jobs": [job(repository="/srv", login_password="\0" + SECRET)]}, "login_password must not contain a NUL"),
        ({"jobs": [job(repository="/srv", pin="\udcff")]}, "pin is"),
        ({"passwords": [{**LINE, "password": SECRET + "\n"}]}, "passwords[0]: password contains a line break"),
        ({"config_dir": "etc"}, "config_dir is 'etc': must be an absolute path"),
        ({"config_dir": "/etc\nx"}, "must be an absolute path, on one line"),
        ({"passfile": "~/.pgpass"}, "passfile is '~/.pgpass': must be an absolute path"),
        ({"state": "gone"}, "state is 'gone': must be one of present, absent"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(place: Place, options: dict[str, Any], message: str) -> None:
    assert message in place.refuse(**options)
    assert not place.path.exists()
    place.configure(jobs=[job("before", repository="/srv")])
    assert message in place.refuse(**options)


def test_a_password_file_in_the_place_of_another_file_is_refused(place: Place) -> None:
    for name in ("defaults.json", "jobs.d/main.json", "targets.d/vault.json"):
        assert "where the configuration has other files" in place.refuse(passfile=str(place.path / name))


def test_what_was_written_by_hand_is_checked_with_the_rest(place: Place) -> None:
    path = place.by_hand("jobs.d/mine.json", {"wait": "1m"})
    assert f"{path}: repository is not set" in place.refuse(jobs=[job(repository="/srv")])
    place.configure(defaults={"repository": "/srv"}, jobs=[job()])
    assert f"{path}: repository is not set" in place.refuse(jobs=[job(repository="/srv")])
    warned = place.configure(state="absent")
    assert [warning.split(" is not set")[0] for warning in warned.warnings] == [f"{path}: repository"]
    place.by_hand("jobs.d/my job.json", {"repository": "/srv"})
    assert "'my job' is not the name of a job" in place.refuse(defaults={"repository": "/srv"})


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_refused_where_a_file_shall_be(place: Place, make: Any) -> None:
    place.jobs.mkdir(parents=True)
    make(place.jobs / "main.json")
    assert place.refuse(jobs=[job(repository="/srv")]).endswith(": repair it, or move it away")
    assert place.configure(check=True, state="absent").removed == ()


def test_a_directory_of_something_else_is_left_alone(place: Place) -> None:
    place.by_hand("passwd", "root:x:0:0\n")
    assert "which holds other things and no configuration" in place.refuse(jobs=[job(repository="/srv")])
    assert place.configure(state="absent").removed == ()
    link = place.path.parent / "link"
    link.symlink_to(place.path)
    assert "is a symbolic link" in place.refuse(config_dir=str(link))
    assert "is not a directory" in place.refuse(config_dir=str(place.path / "passwd"))
    missing = place.path / "a" / "b"
    with pytest.raises(ConfigurationError, match=r"cannot be made \(No such file or directory\): create .*/a first"):
        place.configure(config_dir=str(missing))


def test_a_user_that_is_not_there_is_refused_and_only_a_warning_in_check_mode(place: Place) -> None:
    if os.geteuid() != 0:
        assert "who can write for nobody else: use become" in place.refuse(owner="nosuchuser")
        assert "who can write for nobody else: use become" in place.refuse(group="nosuchgroup")
        return
    options = {"owner": "nosuchuser", "group": "nosuchgroup", "jobs": [job(repository="/srv")]}
    planned = place.configure(check=True, **options)
    assert planned.changed
    assert [warning.rpartition(", ")[2] for warning in planned.warnings] == [
        "but there is no such user yet", "but there is no such group yet",
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="owner is 'nosuchuser', but there is no such user: create it first"):
        place.configure(**options)
    with pytest.raises(ConfigurationError, match="is not in it and could not read the configuration"):
        place.configure(owner="nobody", group="daemon")
    place.configure(jobs=[job(repository="/srv")])
    assert place.configure(owner="nosuchuser", state="absent").changed


# --- what a reader sees meanwhile ---


def test_a_reader_sees_the_configuration_of_before_or_of_afterwards_at_every_step(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step is real; between them the configuration is read as cron would."""
    place.by_hand("jobs.d/hand.json", {"repository": "/hand"})
    old = {
        "defaults": {"repository": "/old", "compression": "zstd:3", "keep_last": 5},
        "jobs": [job(instance="a", targets=["old"]), job("moved", keep_last=9), job("gone"), job("same")],
        "targets": [target("old"), target("same", path="/mnt/a")],
    }
    new = {
        "defaults": {"keep_days": 7, "login_user": "backup"},
        "jobs": [job("moved", repository="/new"), job(repository="/new"), job("same", repository="/new"),
                 job("fresh", repository="/new", targets=["new", "same"])],
        "targets": [target("new"), target("same", path="/mnt/b")],
        "passwords": [{**LINE, "password": SECRET}],
    }  # fmt: skip
    place.configure(**old)
    ends = [config.load_all(str(place.path))]
    seen: list[dict[str, dict[str, Any]]] = []

    def watched(step: Any) -> Any:
        def look(*arguments: Any) -> None:
            step(*arguments)
            seen.append(config.load_all(str(place.path)))

        return look

    for name in ("write", "remove", "make_directory"):
        monkeypatch.setattr(config_files, name, watched(getattr(config_files, name)))
    place.configure(**new)
    ends.append(config.load_all(str(place.path)))
    assert len(seen) > 6
    defaults = {"compression": "auto", "keep_last": None}  # a job may say them for a moment, which changes nothing
    for loaded in seen:
        for name, options in loaded.items():
            wanted = [state[name] for state in ends if name in state]
            assert options in [*wanted, *({**defaults, **item} for item in wanted)], name


def test_defaults_that_are_replaced_while_a_job_is_read_are_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replacement happens in the very moment between the two files, where no test would hit it by chance."""
    place.configure(defaults={"repository": "/old", "keep_last": 1}, jobs=[job(instance="old")])
    load = config._load_job

    def replaced_first(*arguments: Any) -> Any:
        monkeypatch.undo()
        place.configure(defaults={"repository": "/new"}, jobs=[job(instance="new")])
        return load(*arguments)

    monkeypatch.setattr(config, "_load_job", replaced_first)
    assert config.load_job(str(place.path), "main") == {"repository": "/new", "instance": "new"}


# --- other users ---


@contextmanager
def being_nobody() -> Iterator[None]:
    """Have the rights of nobody for a while, as a play without become has those of whoever runs it."""
    entry = pwd.getpwnam("nobody")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def homes() -> Iterator[Path]:
    """A directory that everybody can enter, with one that is nobody's and one that is root's."""
    parent = Path(tempfile.mkdtemp(prefix="pgkeep-", dir="/tmp"))
    parent.chmod(0o755)
    for name in ("nobody", "root"):
        (parent / name).mkdir(mode=0o755)
        shutil.chown(parent / name, name)
    yield parent
    shutil.rmtree(parent)


@pytest.mark.needs_root
def test_an_ordinary_user_writes_a_configuration_for_itself_alone(homes: Path) -> None:
    place = Place(homes / "nobody" / "etc")
    options = {"jobs": [job(repository="/srv")], "passwords": [{**LINE, "password": SECRET}]}
    with being_nobody():
        assert "owner is 'postgres', but this runs as 'nobody'" in place.refuse(owner="postgres", **options)
        assert "group is 'root', but this runs as" in place.refuse(owner="nobody", group="root", **options)
        assert place.configure(owner="nobody", **options).changed
        assert not place.configure(owner="nobody", **options).changed
        assert config.check_directory(str(place.path)) == []
        readonly = Place(homes / "root" / "etc")
        with pytest.raises(ConfigurationError, match=r"cannot be made .*: check owner and mode of"):
            readonly.configure(owner="nobody", **options)
    assert {path.owner() for path in (place.path, *place.path.rglob("*"))} == {"nobody"}


@pytest.mark.needs_root
def test_root_writes_a_password_file_elsewhere_with_the_rights_of_its_owner(homes: Path) -> None:
    place = Place(homes / "root" / "etc")
    options = {"owner": "nobody", "jobs": [job(repository="/srv")], "passwords": [{**LINE, "password": SECRET}]}
    passfile = homes / "nobody" / "pgpass"
    place.configure(**options, passfile=str(passfile))
    assert (passfile.owner(), passfile.stat().st_mode & 0o7777) == ("nobody", 0o600)
    assert {path.owner() for path in (place.path, *place.path.rglob("*"))} == {"root"}
    assert not place.configure(**options, passfile=str(passfile)).changed
    (homes / "nobody" / "trap").symlink_to(homes / "root")
    with pytest.raises(ConfigurationError, match=r"pgpass cannot be written .*: check owner and mode of"):
        place.configure(**options, passfile=str(homes / "nobody" / "trap" / "pgpass"))
    assert not (homes / "root" / "pgpass").exists()
    assert (os.geteuid(), os.getegid()) == (0, 0)
    place.configure(owner="nobody", state="absent")
    assert not place.path.exists()
    assert not passfile.exists()


# --- what people wrote, beside ours ---


def test_defaults_by_hand_do_not_give_way_while_a_job_by_hand_needs_them(place: Place) -> None:
    place.by_hand(
        "defaults.json", {"comment": "ours", "repository": "/old", "keep_monthly": 12, "log_dir": "/var/log/a"}
    )
    place.by_hand("jobs.d/nightly.json", {"log_dir": None})
    said = place.refuse(defaults={"repository": "/new"}, jobs=[job()])
    assert "the job nightly, which was written by hand, takes keep_monthly, repository from defaults.json" in said
    assert said.endswith("nothing was changed")
    place.configure(defaults={"repository": "/old", "keep_monthly": 12}, jobs=[job()])
    assert place.read("jobs.d/nightly.json") == {"log_dir": None}
    place.configure(defaults={"repository": "/new"}, jobs=[job()])  # now they are the variables', whoever changes them


@pytest.mark.parametrize(
    ("by_hand", "ours"),
    [
        ({"keep_monthly": 12}, {}),
        ({"keep_monthly": 12, "databases": ["shop"]}, {"databases": ["stock"]}),  # the globals are both's
        ({"keep_last": 3, "globals": False, "databases": ["shop"]}, {"exclude": ["test_.*"]}),
    ],
)
def test_two_jobs_may_not_delete_each_others_backups(
    place: Place, by_hand: dict[str, Any], ours: dict[str, Any]
) -> None:
    place.by_hand("jobs.d/nightly.json", by_hand)
    assert "the jobs nightly, which was written by hand, and main have repository" in place.refuse(
        defaults={"repository": "/srv"}, jobs=[job(**ours)]
    )


@pytest.mark.parametrize(
    ("by_hand", "ours"),
    [
        ({"keep_monthly": 12, "instance": "other"}, {}),
        ({"keep_monthly": 12, "repository": "/other"}, {}),
        ({"keep_last": 10, "keep_days": 30, "keep_weekly": 0}, {}),  # what a job has that says nothing
        ({"keep_last": 3, "globals": False, "databases": ["shop"]}, {"exclude": ["shop"]}),
        ({"keep_last": 3, "globals": False, "databases": ["shop"]}, {"databases": ["stock"]}),
    ],
)
def test_jobs_with_nothing_in_common_or_the_same_rules_stand_side_by_side(
    place: Place, by_hand: dict[str, Any], ours: dict[str, Any]
) -> None:
    file = place.by_hand("jobs.d/nightly.json", by_hand)
    place.configure(defaults={"repository": "/srv"}, jobs=[job(**ours)])
    assert json.loads(file.read_text()) == by_hand
