"""What every process of asheard needs, once.

errors       the taxonomy of failures (pure)
units        bytes per millisecond, the length of a frame (pure)
config       environment variables, read once, checked at the start
trust        what the environment says of secrets and certificates; credentials reads the files
log          structured lines with the call's id, without speech or numbers
metrics      the names of the contract, and the clocks they are taken from
admin        /metrics, /livez, /readyz
http, rpc    ports with bounds on who is connected, and for how long
facts        the outbox that brings a call's facts to the transcript service
fact_queue   what of it waits, goes next, is given up (pure)
background   tasks beside a service's work; drain: what is under way is finished, within limits
backoff      how long to wait before something that failed is tried again
process      uvloop, signals and exit status; named nowhere else
"""
