"""Commands that read transcripts: a client of ``asheard.v1.TranscriptService`` like any other.

client   target, token, and what goes wrong, in words
show     transcripts for people
machine  messages as JSON for machines
get, watch, calls, check_heard   one command each
"""
