"""The commands that read transcripts, for people and for scripts.

connection  what they all take: target, token, TLS
show        transcripts for people
machine     messages as JSON for machines
get, watch, calls, check_heard   one command each
"""
