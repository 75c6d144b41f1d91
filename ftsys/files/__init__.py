"""Reads and writes files: paths, atomic writing, untrusted content, checksums, leases. Imports no torch."""
