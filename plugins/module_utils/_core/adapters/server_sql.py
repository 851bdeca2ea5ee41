# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The queries of `server`. With an empty search_path every name is pg_catalog's; where it is not, all is qualified."""

from __future__ import annotations

from ..domain.facts import OUTPUT_SETTINGS

# session_user counts for CONNECT: the role to switch to is only switched to afterwards.
_CONNECT = "has_database_privilege(session_user, d.oid, 'CONNECT')"

SERVER = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int, current_user::text,
       r.rolsuper, r.rolbypassrls, has_table_privilege('pg_authid', 'SELECT'), pg_is_in_recovery(),
       current_setting('max_locks_per_transaction')::int
       * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int),
       has_function_privilege('pg_control_system()', 'EXECUTE')
FROM pg_roles r WHERE r.rolname = current_user
"""

SYSTEM_IDENTIFIER = "SELECT system_identifier FROM pg_control_system()"

CLUSTER_NAME = "SELECT current_setting('cluster_name')"

# The state is NULL where the role may not see it. A subscriber's slot is a logical one, and what only receives WAL
# (pg_receivewal) replays none: neither of them is a standby.
WAL_SENDERS = """
SELECT r.state, r.application_name::text,
       r.replay_lsn IS NOT NULL AND NOT EXISTS (SELECT FROM pg_replication_slots s
                                                WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
FROM pg_stat_replication r ORDER BY r.application_name, r.pid
"""

# Nothing is left to replay, or the seconds since the last transaction that was replayed; NULL when there was none.
REPLAY_LAG = """
SELECT (CASE WHEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL)
                  AND pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() THEN 0
             ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END)::float8
"""

MAY_PAUSE_REPLAY = "SELECT bool_and(has_function_privilege(f, 'EXECUTE')) FROM unnest(%(functions)s) f"

PAUSE_REPLAY, RESUME_REPLAY = "SELECT pg_wal_replay_pause()", "SELECT pg_wal_replay_resume()"

# A standby's own sessions cannot have such a lock, so it is replay's.
REPLAY_LOCKS = """
SELECT DISTINCT coalesce(d.datname::text, '(all databases)') FROM pg_locks l LEFT JOIN pg_database d ON d.oid = l.database
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted ORDER BY 1
"""

SERVER_START = "SELECT extract(epoch FROM pg_postmaster_start_time())::text"

# Versions before 14 do not have it.
NO_IDLE_TIMEOUT = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"


def replay_state(version_num: int) -> str:
    """Given a standby's version, return the query for the state of the pause and the position of replay.

    Before 14 the server tells only that a pause was asked for.
    """
    state = "pg_get_wal_replay_pause_state()"
    if version_num < 140000:
        state = "CASE WHEN pg_is_wal_replay_paused() THEN 'pause requested' ELSE 'not paused' END"
    return f"SELECT {state}, pg_last_wal_replay_lsn()::text"


DATABASES = f"""
SELECT d.datname::text, octet_length(d.datname::text), pg_get_userbyid(d.datdba)::text,
       d.datallowconn, d.datistemplate, d.datconnlimit = -2, {_CONNECT},
       CASE WHEN d.datconnlimit <> -2
                 AND (has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE'))
            THEN pg_database_size(d.oid) END
FROM pg_database d
ORDER BY d.datname::text COLLATE "C"
"""

_THIS = "SELECT d.oid FROM pg_database d WHERE d.datname = current_database()"


def database(version_num: int) -> str:
    """Given a server's version, return the query for the current database's row."""
    provider = "d.datlocprovider::text" if version_num >= 150000 else "'c'"
    locale = "d.datlocale" if version_num >= 170000 else "d.daticulocale" if version_num >= 150000 else "NULL"
    rules = "d.daticurules" if version_num >= 160000 else "NULL"
    collation_version = "d.datcollversion" if version_num >= 150000 else "NULL"
    return f"""
SELECT d.datname::text, pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text, {provider},
       d.datcollate::text, d.datctype::text, {locale}, {rules}, {collation_version}, t.spcname::text, d.datconnlimit,
       d.datistemplate, shobj_description(d.oid, 'pg_database'), d.datacl IS NOT NULL, pg_database_size(d.oid)
FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
WHERE d.datname = current_database()
"""


ACL = """
SELECT pg_get_userbyid(a.grantor)::text, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END,
       a.privilege_type, a.is_grantable
FROM pg_database d, aclexplode(d.datacl) WITH ORDINALITY a
WHERE d.datname = current_database()
ORDER BY a.ordinality
"""

# Order matters to nobody but people who compare: role after role, as it was set within each.
SETTINGS = f"""
SELECT CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole)::text END, c.setting
FROM pg_db_role_setting s, unnest(s.setconfig) WITH ORDINALITY c (setting, place)
WHERE s.setdatabase = ({_THIS})
ORDER BY 1 NULLS FIRST, c.place
"""

EXTENSIONS = """
SELECT e.extname::text, e.extversion, n.nspname::text
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
ORDER BY e.extname::text COLLATE "C"
"""

# The first superuser is in no pg_shdepend row, so what it owns is looked for. Roles named pg_* are in every server.
ROLES = f"""
WITH used AS (
    SELECT refobjid AS oid FROM pg_shdepend
    WHERE refclassid = 'pg_authid'::regclass
          AND (dbid = ({_THIS}) OR (dbid = 0 AND classid = 'pg_database'::regclass AND objid = ({_THIS})))
    UNION SELECT datdba FROM pg_database WHERE datname = current_database()
    UNION SELECT setrole FROM pg_db_role_setting WHERE setdatabase = ({_THIS})
    UNION (SELECT 10::oid WHERE EXISTS (SELECT FROM pg_class WHERE oid >= 16384 AND relowner = 10)
                             OR EXISTS (SELECT FROM pg_proc WHERE oid >= 16384 AND proowner = 10)
                             OR EXISTS (SELECT FROM pg_type WHERE oid >= 16384 AND typowner = 10)
                             OR EXISTS (SELECT FROM pg_namespace WHERE oid >= 16384 AND nspowner = 10)
                             OR EXISTS (SELECT FROM pg_largeobject_metadata WHERE lomowner = 10))
)
SELECT r.rolname::text FROM pg_roles r JOIN used ON used.oid = r.oid
WHERE r.rolname !~ '^pg_'
ORDER BY r.rolname::text COLLATE "C"
"""

TABLESPACES = """
SELECT t.spcname::text FROM pg_tablespace t
WHERE t.oid IN (SELECT dattablespace FROM pg_database WHERE datname = current_database()
                UNION SELECT reltablespace FROM pg_class)
      AND t.spcname NOT IN ('pg_default', 'pg_global')
ORDER BY t.spcname::text COLLATE "C"
"""

OUTPUT = f"SELECT {', '.join(f'current_setting({name!r})' for name in OUTPUT_SETTINGS)}"

_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"

COUNTS = f"""
SELECT count(*) FILTER (WHERE c.relkind IN ('r', 'p')), count(*),
       (SELECT count(*) FROM pg_largeobject_metadata),
       (SELECT count(subdbid) FROM pg_subscription WHERE subdbid = ({_THIS}))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_OURS}
"""

# The two that run in the role's own search path, which may have anything in front of pg_catalog.
RELATIONS = """
SELECT c.oid, pg_catalog.format('%%s.%%s', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p', 'v', 'm', 'S', 'f']::pg_catalog."char"[])
      AND c.relname::pg_catalog.text OPERATOR(pg_catalog.~) %(name)s COLLATE pg_catalog."default"
      AND CASE WHEN %(schema)s::pg_catalog.text IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
               ELSE n.nspname::pg_catalog.text OPERATOR(pg_catalog.~) %(schema)s COLLATE pg_catalog."default" END
"""

SCHEMAS = """
SELECT n.oid, n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n
WHERE n.nspname::pg_catalog.text OPERATOR(pg_catalog.~) %(name)s COLLATE pg_catalog."default"
"""

# For hints only, so a few thousand are enough.
RELATION_NAMES = f"""
SELECT format('%s.%s', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND {_OURS}
LIMIT 5000
"""

SCHEMA_NAMES = f"SELECT n.nspname::text FROM pg_namespace n WHERE {_OURS} LIMIT 5000"

# Which relations pg_dump takes, by its own rules: tables given by name count alone; else schemas, else all. A sequence
# that belongs to a column comes with its table, an identity's (i) with nothing else. Members of extensions do not,
# but for their configuration's rows.
OBSTACLES = f"""
WITH configuration AS (
    SELECT unnest(e.extconfig) AS oid FROM pg_extension e WHERE %(everything)s
), relation AS (
    SELECT c.oid, c.relkind, c.relrowsecurity, n.oid AS schema, n.nspname,
           format('%%s.%%s', n.nspname, c.relname) AS name,
           CASE WHEN %(by_table)s THEN c.oid = ANY (%(tables)s::oid[])
                ELSE ({_OURS}) AND (%(everything)s OR n.oid = ANY (%(schemas)s::oid[]))
                     AND n.oid <> ALL (%(exclude_schemas)s::oid[]) END
           AND c.oid <> ALL (%(exclude_tables)s::oid[]) AS named,
           EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                   AND d.deptype = 'e') AS of_extension,
           c.oid IN (SELECT oid FROM configuration) AS of_configuration,
           c.oid <> ALL (%(exclude_table_data)s::oid[]) AS with_data
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
), taken AS (
    SELECT r.* FROM relation r
    LEFT JOIN pg_depend d ON r.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = r.oid
                             AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    LEFT JOIN relation t ON t.oid = d.refobjid AND t.named AND NOT t.of_extension
    WHERE r.of_configuration
          OR (NOT r.of_extension AND (t.oid IS NOT NULL OR (r.named AND d.deptype IS DISTINCT FROM 'i')))
)
SELECT count(*) FILTER (WHERE relkind <> 'S'), count(*) FILTER (WHERE relkind = 'r' AND with_data),
       array_agg(name ORDER BY name) FILTER (WHERE relkind = 'r' AND with_data AND relrowsecurity
                                             AND row_security_active(oid)),
       array_agg(name ORDER BY name) FILTER (WHERE (relkind <> 'S' OR with_data)
                                             AND NOT has_table_privilege(oid, 'SELECT')),
       array_agg(DISTINCT nspname::text) FILTER (WHERE (relkind <> 'S' OR with_data)
                                                 AND NOT has_schema_privilege(schema, 'USAGE'))
FROM taken
"""

# There is no has_largeobject_privilege before 18. pg_read_all_data covers large objects from 19 on.
UNREADABLE_LARGE_OBJECTS = """
SELECT count(*) FROM pg_largeobject_metadata m
WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
      AND current_setting('lo_compat_privileges') <> 'on'
      AND NOT pg_has_role(m.lomowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a
                      WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
      AND NOT CASE WHEN current_setting('server_version_num')::int >= 190000
                   THEN pg_has_role('pg_read_all_data', 'USAGE') ELSE false END
"""

# --- what a restore depends on ---

TARGET = """
SELECT (SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user),
       ARRAY(SELECT rolname::text FROM pg_roles),
       ARRAY(SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, 'MEMBER')),
       ARRAY(SELECT DISTINCT v.name::text FROM pg_available_extension_versions v
             WHERE NOT v.superuser OR v.trusted
                   OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)),
       ARRAY(SELECT spcname::text FROM pg_tablespace),
       (SELECT count(*) FROM pg_stat_activity WHERE datname = %(database)s AND pid <> pg_backend_pid()
                                                    AND backend_type IS DISTINCT FROM 'autovacuum worker')
"""

# Of a role that may not know it there is no row.
DATA_DIRECTORY = "SELECT setting FROM pg_settings WHERE name = 'data_directory'"

# Whatever a restore could collide with.
OBJECTS = """
SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
     + (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
     + (SELECT count(*) FROM pg_namespace n
        WHERE n.nspname NOT IN ('information_schema', 'public') AND n.nspname !~ '^pg_')
     + (SELECT count(*) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE t.typtype IN ('e', 'd') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
     + (SELECT count(*) FROM pg_largeobject_metadata)
     + (SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql')
"""

# Databases that a restore which was killed left behind; the comment says that they are ours.
LEFTOVERS = """
SELECT d.datname::text FROM pg_database d JOIN pg_shdescription s ON s.objoid = d.oid AND s.classoid = 'pg_database'::regclass
WHERE starts_with(d.datname::text, 'pgkeep_restore_') AND starts_with(s.description, 'pgkeep: ')
"""

TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(database)s AND pid <> pg_backend_pid()"
)

# --- what belongs to the whole server ---

_LABELS = "ARRAY(SELECT ARRAY[l.provider, l.label] FROM pg_shseclabel l WHERE l.objoid = {oid} AND l.classoid = {of}::regclass)"

_TIME = 'YYYY-MM-DD HH24:MI:SS.US"+00"'


def globals_roles(passwords: bool) -> str:
    """Given whether this role may read passwords, return the query for all roles."""
    password = "a.rolpassword" if passwords else "NULL"
    source = "pg_authid a" if passwords else "pg_roles a"
    labels = _LABELS.format(oid="a.oid", of="'pg_authid'")
    return f"""
SELECT a.rolname::text, a.rolsuper, a.rolinherit, a.rolcreaterole, a.rolcreatedb, a.rolcanlogin, a.rolreplication,
       a.rolbypassrls, a.rolconnlimit,
       CASE WHEN isfinite(a.rolvaliduntil) THEN to_char(a.rolvaliduntil AT TIME ZONE 'UTC', '{_TIME}')
            ELSE a.rolvaliduntil::text END,
       {password}, s.setconfig, shobj_description(a.oid, 'pg_authid'), {labels},
       a.oid = 10, pg_has_role(a.oid, 'MEMBER WITH ADMIN OPTION')
FROM {source} LEFT JOIN pg_db_role_setting s ON s.setrole = a.oid AND s.setdatabase = 0
ORDER BY a.rolname::text COLLATE "C"
"""


SESSION_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = session_user"


def globals_memberships(version_num: int) -> str:
    """Given a server's version, return the query for all memberships."""
    options = "a.inherit_option, a.set_option" if version_num >= 160000 else "NULL::bool, true"
    return f"""
SELECT r.rolname::text, m.rolname::text, g.rolname::text, a.admin_option, {options}
FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
     LEFT JOIN pg_roles g ON g.oid = a.grantor
ORDER BY 1, 2, 3
"""


# Who is granted by the owner has NULL for the grantor.
GLOBALS_TABLESPACES = f"""
SELECT t.spcname::text, pg_get_userbyid(t.spcowner)::text, pg_tablespace_location(t.oid), t.spcoptions,
       shobj_description(t.oid, 'pg_tablespace'), {_LABELS.format(oid="t.oid", of="'pg_tablespace'")}
FROM pg_tablespace t
WHERE t.spcname NOT IN ('pg_default', 'pg_global')
"""

GLOBALS_TABLESPACE_PRIVILEGES = """
SELECT t.spcname::text, a.privilege_type, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END,
       a.is_grantable, CASE WHEN a.grantor <> t.spcowner THEN pg_get_userbyid(a.grantor)::text END
FROM pg_tablespace t, aclexplode(t.spcacl) a
WHERE t.spcname NOT IN ('pg_default', 'pg_global')
"""

GLOBALS_PARAMETER_PRIVILEGES = """
SELECT p.parname, a.privilege_type, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END,
       a.is_grantable, CASE WHEN a.grantor <> 10 THEN pg_get_userbyid(a.grantor)::text END
FROM pg_parameter_acl p, aclexplode(p.paracl) a
"""

# Asked by name, as that finds a setting under its earlier names too; only a superuser sees all of them.
UNKNOWN_SETTINGS = """
SELECT name FROM unnest(%(names)s::text[]) name WHERE strpos(name, '.') = 0 AND current_setting(name, true) IS NULL
"""


def refused_settings(version_num: int) -> str:
    """Given a server's version, return the query for those of some settings that this role may not set.

    One that no library of the server knows, and only its name says that it is an application's, is a superuser's.
    """
    allowed = "has_parameter_privilege(n.name, 'SET')" if version_num >= 150000 else "false"
    return f"""
SELECT n.name FROM unnest(%(names)s::text[]) n (name) LEFT JOIN pg_settings s ON lower(s.name) = lower(n.name)
WHERE CASE WHEN s.name IS NULL THEN strpos(n.name, '.') > 0 ELSE s.context NOT IN ('user', 'backend') END
      AND NOT {allowed}
"""


DIRECTORY_EXISTS = "SELECT coalesce((pg_stat_file(%(path)s, true)).isdir, false)"
