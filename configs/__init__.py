"""Shipped experiments: one small file each, `get_config()` says only what differs from the defaults."""
