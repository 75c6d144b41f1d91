"""Reads and writes files: paths, atomic writing, untrusted content, checksums, leases. Imports nothing heavy."""
