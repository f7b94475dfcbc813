"""The commands of a device beside hetero-client, and what they print.

hetero-infer with --calibrate, hetero-status, and the table of --list-cuts; one file each.
hetero-client itself is `hetero_client.__main__`.
"""
