"""One conversation with the OpenAI Realtime API.

``events``, ``conversation`` and ``input_clock`` are pure: values in, values out, ``now`` as an
argument. ``connection`` is the socket.
"""
