"""One conversation with the OpenAI Realtime API.

All of it is pure (values in, values out, ``now`` as an argument) but ``connection`` and
``picows_connection``, which are the socket.
"""
