"""The tables of the coordinator's database, but for those of the public log."""

from typing import Final

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS members (
    role TEXT NOT NULL, name TEXT NOT NULL, enrolled TEXT NOT NULL, revoked TEXT,
    last_seen TEXT, software TEXT NOT NULL DEFAULT '', PRIMARY KEY (role, name));
CREATE TABLE IF NOT EXISTS signing_keys (site TEXT PRIMARY KEY, key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS studies (
    study TEXT PRIMARY KEY, version INTEGER NOT NULL, plan_hash TEXT NOT NULL,
    envelope BLOB NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    initial BLOB, added TEXT NOT NULL, changed TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (
    study TEXT NOT NULL, site TEXT NOT NULL, take_part INTEGER NOT NULL, decided TEXT NOT NULL,
    PRIMARY KEY (study, site));
CREATE TABLE IF NOT EXISTS answers (
    task_id TEXT PRIMARY KEY, study TEXT NOT NULL, site TEXT NOT NULL, round INTEGER NOT NULL,
    kind TEXT NOT NULL, answer BLOB NOT NULL, received TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS answers_by_study ON answers (study, kind);
CREATE TABLE IF NOT EXISTS steps (
    label TEXT NOT NULL, step TEXT NOT NULL, sites TEXT NOT NULL, PRIMARY KEY (label, step));
CREATE TABLE IF NOT EXISTS totals (
    study TEXT NOT NULL, purpose TEXT NOT NULL, numbers TEXT NOT NULL, sites TEXT NOT NULL,
    PRIMARY KEY (study, purpose));
CREATE TABLE IF NOT EXISTS rounds (
    study TEXT NOT NULL, round INTEGER NOT NULL, state BLOB NOT NULL, sites TEXT NOT NULL,
    closed TEXT NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (study, round));
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, study TEXT NOT NULL,
    site TEXT NOT NULL, text TEXT NOT NULL);
"""
