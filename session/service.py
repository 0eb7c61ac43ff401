"""The session worker as a process: opens its ports, serves, drains.

Drain, in this order: not ready, no new calls, the calls finish, their facts are delivered, exit.
A second signal ends the calls at once; their facts are delivered all the same.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from asheard.v1 import session_service_pb2, session_service_pb2_grpc
from native import COMPILED
from runtime.admin import AdminServer
from runtime.background import Background
from runtime.credentials import Credentials
from runtime.drain import until_drained
from runtime.facts import FactOutbox
from runtime.guard import Guard
from runtime.log import get_log
from runtime.metrics import LoopLag
from runtime.process import Stop
from runtime.rpc import LINK, GrpcServer
from session.admission import Admission
from session.agent import load_agent
from session.call import CallSettings
from session.calls import Calls
from session.config import SessionConfig
from session.metrics import SessionMetrics
from session.notices.book import make_book
from session.realtime.connection import Connect
from session.realtime.picows_connection import connect_picows
from session.rpc import SessionService
from session.tools import ToolRunner, open_http
from session.words import Refine
from words.pool import AlignerPool

log = get_log(__name__)

FLUSH_S = 15.0
"""How long the last facts may take to be durable; beyond it the process ends without."""

LINK_GRACE_S = 1.0
"""How long links may stay open after the last call: what was posted last has left by then."""

SERVICE = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name


async def serve(
    config: SessionConfig,
    stop: Stop,
    *,
    connect: Connect = connect_picows,
    refine: Refine | None = None,
) -> None:
    """Serve calls until ``stop``.

    Args:
        config: Checked already.
        stop: Says when to drain, and when to end at once.
        connect: Opens Realtime sockets.
        refine: Times the words of what was cut off. None: a pool of aligning processes, of this
            worker's own.

    Raises:
        ConfigurationError: The agent file is bad, a secret or certificate is, or a port is taken.
        RuntimeError: The aligner did not come up.
    """
    agent = load_agent(config.agent_path)
    credentials = Credentials(config.trust)
    registry = CollectorRegistry()
    metrics = SessionMetrics(registry)
    lag = LoopLag(registry)
    facts = FactOutbox(config.ingest_target, registry, credentials)
    server = GrpcServer(
        config.listen,
        [SERVICE],
        liveness=LINK,
        credentials=credentials,
        guard=Guard("session", credentials, metrics.refusals),
    )
    pool = AlignerPool()
    aligning = refine is None and config.align != "off"
    background = Background()
    async with open_http() as http:
        settings = CallSettings(
            agent=agent,
            model=agent.model or config.realtime_model,
            realtime_url=config.realtime_url,
            key=config.openai_api_key,
            align=config.align,
            connect=connect,
            tools=ToolRunner(agent.tools, http),
            refine=refine or pool.refine,
            metrics=metrics,
            notices=make_book(agent, config.agent_path),
            follow=pool.open,
        )
        admission = Admission(max_calls=config.max_calls, max_lag_s=config.max_lag_ms / 1000)
        calls = Calls(settings, facts, admission, lag)
        session_service_pb2_grpc.add_SessionServiceServicer_to_server(
            SessionService(calls), server.server
        )
        admin = AdminServer(
            config.admin, registry, ready=lambda: _unready(stop, facts), remark=facts.trouble
        )
        background.start("loop lag", lag.run())
        try:
            await admin.start()
            if aligning:
                # Loads the model now, not on the first call's path; and before gRPC is under way,
                # which complains of a fork beside its threads.
                await pool.start()
            await facts.start()
            await server.start()
            await server.set_serving(True)
            log.info(
                "session worker ready",
                port=server.port,
                admin_port=admin.port,
                agent=agent.name,
                agent_file=Path(config.agent_path).name if config.agent_path else "bundled",
                compiled=COMPILED,
                trust=config.trust.means,
            )
            await background.until_stopped(stop)
            calls.drain()
            await server.set_serving(False)
            await until_drained(
                stop, calls.idle(), drain_s=config.drain_s, calls=lambda: calls.active
            )
        finally:
            calls.cancel()
            await calls.idle()
            await server.stop(LINK_GRACE_S)
            if not await facts.flush(FLUSH_S):
                log.error("the transcript service did not take the last facts")
            await facts.close()
            await pool.close()
            await admin.close()
            await background.close()


def _unready(stop: Stop, facts: FactOutbox) -> str | None:
    """Why new calls should go elsewhere. Full is not unready: the load reports say it better."""
    return "draining" if stop.draining.is_set() else facts.unhealthy()
