"""``asheard bench faults``: the faults that were once found, tried again on real processes and sockets.

Each scenario starts a system of its own, does what once did harm, and measures from outside what
came of it: at the model's end, at Twilio's end, in the transcripts, at the admin ports. Nothing
here reaches into a process, so that the same scenarios tell an older version from a newer one.
"""
