# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options and configuration files that cannot be meant: exit code 2, file, key, value and what is allowed; nothing done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.keeper import Done, Keeper, assert_untouched, snapshot, write_job

SECRET = "s3cret-marker"


def said(done: Done, *parts: str, code: int = 2) -> None:
    assert done.code == code, done
    assert all(line.startswith("pgkeep: error: ") for line in done.err.splitlines())
    assert SECRET not in done.out + done.err
    for part in parts:
        assert part in done.err


# text of the job file -> what is said
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown key": ('{"databses": ["a"]}', ("night.json", "databses is not known", "did you mean databases")),
    "unknown key with a secret": (f'{{"login_pasword": "{SECRET}"}}', ("login_pasword is not known", "login_password")),
    "wrong type": ('{"jobs": "2"}', ("night.json", 'jobs is "2": must be of type integer')),
    "wrong type in a list": ('{"databases": ["a", 5]}', ("databases[1] is 5: must be of type string",)),
    "password of the wrong type": (f'{{"login_password": ["{SECRET}"]}}', ("login_password must be of type string",)),
    "not one of the choices": ('{"format": "costum"}', ('format is "costum"', "custom, directory, plain, tar")),
    "bad JSON": ('{"databases": ["a"],}', ("night.json:1:", "not JSON")),
    "not UTF-8": ("\udcff{}", ("not UTF-8",)),
    "nothing": ("", ("night.json:1:1: not JSON",)),
    "a list": ("[]", ("must be of type object",)),
    "a key twice": ('{"keep_last": 3, "keep_last": 300}', ("keep_last stands there twice",)),
    "NaN": ('{"keep_last": NaN}', ("NaN is not JSON",)),
    "nested deeply": ('{"databases": ' + "[" * 200_000, ("nested too deeply",)),
    "no such zone": ('{"timezone": "Europe/Berlim"}', ("timezone is 'Europe/Berlim'", "Europe/Berlin")),
    "zone that is a path": ('{"timezone": "../../etc/passwd"}', ("timezone is '../../etc/passwd'",)),
    "keep_minimum 0": ('{"keep_minimum": 0}', ("keep_minimum is 0: must be 1 or more",)),
    "no rule": ('{"keep_last": 0, "keep_days": 0}', ("the retention policy has no rule",)),
    "negative": ('{"keep_last": -1}', ("keep_last is -1: must be 0 or more",)),
    "bad expression": ('{"include": ["("]}', ("include has '('", "not a regular expression")),
    "both ways to select": ('{"databases": ["a"], "include": ["b"]}', ("databases and include are both set",)),
    "bad duration": ('{"deadline": "10"}', ('deadline is "10"', "90s, 20h, 1d12h")),
    "bad size": ('{"reserve": "much"}', ('reserve is "much"',)),
    "relative path": ('{"bin_dir": "bin"}', ('bin_dir is "bin"',)),
    "instance with a path": ('{"instance": "../x"}', ('instance is "../x"',)),
    "jobs without directory": ('{"jobs": 4}', ("jobs is 4", "format directory")),
    "bad level": ('{"compression": "zstd:99"}', ("compression is 'zstd:99'", "1 to 19")),
    "TLS over a socket": ('{"ssl_mode": "verify-full"}', ("no TLS over a Unix socket",)),
    "pin without reason": ('{"pin_until": "2030-01-01"}', ("pin_until is set without pin",)),
    "no such day": ('{"pin": "x", "pin_until": "2030-02-30"}', ("pin_until", "not a time that exists")),
}


@pytest.mark.parametrize("case", FILES)
def test_a_job_that_cannot_be_meant_is_refused(keeper: Keeper, tmp_path: Path, case: str) -> None:
    text, parts = FILES[case]
    option = write_job(tmp_path / "etc", "night")
    common = {"repository": str(keeper.repository), "bin_dir": str(keeper.server.bindir)}
    (tmp_path / "etc/defaults.json").write_text(json.dumps(common))
    (tmp_path / "etc/jobs.d/night.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    said(keeper.run("run", option, "night"), *parts)
    said(keeper.run("check-config", option), *parts)
    assert not keeper.repository.exists()


def test_a_password_that_others_can_read_is_refused(keeper: Keeper, tmp_path: Path) -> None:
    option = write_job(tmp_path / "etc", "night", repository=str(keeper.repository), login_password=SECRET)
    (tmp_path / "etc/jobs.d/night.json").chmod(0o640)
    said(keeper.run("run", option, "night"), "login_password can be read by other users", "chmod 0600")
    (tmp_path / "etc/jobs.d/night.json").chmod(0o600)
    assert keeper.run("check-config", option).code == 0


# text of the target's file -> what is said
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown key": ('{"type": "directory", "pth": "/mnt"}', ("pth is not known", "did you mean path?")),
    "a secret that does not belong there": (
        f'{{"secret_access_key": "{SECRET}"}}',
        ("secret_access_key is not known",),
    ),
    "a secret in a flag": (
        f'{{"type": "rclone", "remote": "s3", "config_file": "/x", "path": "b", "flags": ["--s3-secret-access-key={SECRET}"]}}',
        ("flags: --s3-secret-access-key: secrets belong into config_file",),
    ),
    "no type": ('{"path": "/mnt"}', ("type is not set",)),
    "of another type": ('{"type": "rsync", "host": "vault", "remote": "s3"}', ("remote is set", "does not know it")),
    "bad JSON": ("{", (":1:2: not JSON",)),
    "a job": ('{"repository": "/srv"}', ("repository is not known",)),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_target_that_cannot_be_meant_is_refused_before_a_backup_is_taken(
    keeper: Keeper, tmp_path: Path, case: str
) -> None:
    text, parts = TARGETS[case]
    option = write_job(tmp_path / "etc", "night", repository=str(keeper.repository), targets=["away"])
    file = tmp_path / "etc/targets.d/away.json"
    file.parent.mkdir()
    file.write_text(text)
    for done in (
        keeper.run("run", option, "night"),
        keeper.run("check-config", option),
        keeper.run("check-config", str(file)),
    ):
        said(done, f"{file}:", *parts)
    assert not keeper.repository.exists()


def test_a_target_that_does_not_exist_is_refused_with_those_that_do(keeper: Keeper, tmp_path: Path) -> None:
    option = write_job(tmp_path / "etc", "night", repository=str(keeper.repository), targets=["awya"])
    (tmp_path / "etc/targets.d").mkdir()
    good = tmp_path / "etc/targets.d/away.json"
    good.write_text(json.dumps({"type": "directory", "path": str(tmp_path / "away")}))
    text = "night.json: targets[0] is 'awya', but there is no such target: there are away: did you mean away?"
    for done in (keeper.run("run", option, "night"), keeper.run("check-config", option)):
        said(done, text)
    done = keeper.run("check-config", str(good))
    assert (done.code, done.out) == (0, f"{good}: no problems\n")
    write_job(tmp_path / "etc", "night", repository=str(keeper.repository), targets=["away"])
    assert keeper.run("check-config", option).code == 0


def test_an_unknown_job_names_those_that_there_are(keeper: Keeper, tmp_path: Path) -> None:
    option = write_job(tmp_path / "etc", "nightly", repository=str(keeper.repository))
    said(keeper.run("run", option, "nigthly"), "there is no job nigthly", "there are nightly", "did you mean nightly?")
    said(keeper.run("run", option, "../nightly"), "'../nightly' is not the name of a job")
    said(keeper.run("run", f"--config-dir={tmp_path}/none", "x"), f"{tmp_path}/none is not a directory")


OPTIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no such option": (["backup", "--databse=x"], ()),
    "no integer": (["prune", "--keep-last=many"], ()),
    "no password on a command line": (["backup", "--login-password=x"], ()),
    "no policy": (["prune"], ("the retention policy has no rule", "set keep_last")),
    "keep_minimum 0": (["prune", "--keep-last=1", "--keep-minimum=0"], ("keep_minimum is 0: must be 1 or more",)),
    "all rules off": (["prune", "--keep-last=0", "--keep-days=0"], ("the retention policy has no rule",)),
    "no such zone": (["prune", "--keep-daily=1", "--timezone=Mars"], ("timezone is 'Mars'",)),
    "bad expression": (["backup", "--exclude=["], ("exclude has '['", "not a regular expression")),
    "bad time": (["list", "--before=tomorrow"], ("before", "'tomorrow' is not a time")),
    "bad label": (["backup", "--label=a b"], ("label is 'a b'",)),
    "bad instance": (["backup", "--instance=.."], ("instance is '..'",)),
    "huge duration": (["backup", "--wait=999999999999999d"], ("wait", "too long")),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_cannot_be_meant_is_refused(keeper: Keeper, case: str) -> None:
    assert keeper.backup("postgres").code == 0
    before = snapshot(keeper.repository)
    (command, *arguments), parts = OPTIONS[case]
    done = keeper.run(command, *arguments)
    assert done.code == 2
    for part in parts or ("error: ",):
        assert part in done.err
    assert_untouched(keeper.repository, before)


@pytest.mark.parametrize("check", [(), ("--dry-run",)])
def test_a_prune_without_a_rule_deletes_nothing(keeper: Keeper, check: tuple[str, ...]) -> None:
    assert [keeper.backup("postgres").code for _unused in range(2)] == [0, 0]
    before = snapshot(keeper.repository)
    said(keeper.run("prune", *check), "the retention policy has no rule")
    assert_untouched(keeper.repository, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--include=shop_.*"], "shop_.*: the pattern in `include` matches no database"),
        (["--exclude=shop_.*"], "shop_.*: the pattern in `exclude` matches no database"),
        (["postgras"], "postgras: there is no such database (there is postgres)"),
        (
            ["postgres", "--tables=nosuch"],
            "tables has the pattern 'nosuch', which matches no table of database 'postgres'",
        ),
        (["postgres", "--exclude-tables=nosuch"], "exclude_tables has the pattern 'nosuch'"),
        (["postgres", "--schemas=pubic"], "did you mean public?"),
        (["postgres", "--exclude-table-data=*.nosuch"], "exclude_table_data has the pattern '*.nosuch'"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_and_not_a_silence(
    keeper: Keeper, arguments: list[str], message: str
) -> None:
    for more in ([], ["--dry-run"]):
        done = keeper.backup(*arguments, *more)
        assert done.code in (1, 4)
        assert message in done.err
        if done.code == 1:
            assert_untouched(keeper.repository, {})


def test_every_problem_of_every_file_is_told_at_once(keeper: Keeper, tmp_path: Path) -> None:
    bad: dict[str, Any] = {"format": "x", "jobs": 0}
    option = write_job(tmp_path / "etc", "one", **bad)
    write_job(tmp_path / "etc", "two", nonsense=1)
    done = keeper.run("check-config", option)
    said(done, "one.json: format", "one.json: jobs", "two.json: nonsense")
    assert len(done.err.splitlines()) == 3
