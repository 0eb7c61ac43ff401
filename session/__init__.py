"""The session worker: the one authority on what was generated.

The way through this package:

* :mod:`session.service`         the process
* :mod:`session.rpc`             the gRPC service: one stream per gateway
* :mod:`session.link`            such a stream; :mod:`session.outbox` is what waits for it (pure)
* :mod:`session.calls`           the calls under way; :mod:`session.admission` takes them (pure)
* :mod:`session.call`            the life of one call
* :mod:`session.caller_input`    the caller's audio on its way to the model (pure)
* :mod:`session.output_handler`  carries out what the conversation wants done
* :mod:`session.realtime`        the OpenAI Realtime API: codec, conversation, clock (pure), socket
* :mod:`session.agent`           the agent file and what becomes of it on the wire
* :mod:`session.tools`           function calls over HTTP
* :mod:`session.words`           word times of what was cut off
"""
