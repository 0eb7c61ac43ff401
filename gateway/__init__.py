"""The gateway: Twilio's side of a call, and the one authority on what was played.

twilio/     PURE: Media Streams messages, the order they come in, signatures, TwiML, frames
playout/    PURE: the playhead, which audio is out there and which mark proves what
nonce       PURE: the one-time password between the TwiML and the stream
bargein     PURE: what one barge-in cost, stage by stage
facts       the playhead's words as facts and link messages
placement   PURE: which session worker gets the next call
links       the multiplexed gRPC streams to the session workers
call        shell of one call: socket <-> stream <-> playhead <-> link <-> facts
server      HTTP and WebSocket on the one public port
service     builds it all, runs it, drains it
"""
