"""The session worker: the one authority on what was generated.

The way through this package:

* :mod:`session.realtime`     the OpenAI Realtime API: codec, conversation, clock (pure), socket
* :mod:`session.agent`        the agent file and what becomes of it on the wire
* :mod:`session.tools`        function calls over HTTP
* :mod:`session.words`        word times of what was cut off
* :mod:`session.call`         the shell of one call
* :mod:`session.link`         the gRPC link to the gateways, with its outbox and admission
* :mod:`session.service`      the process
"""
