"""What every process of asheard needs, once.

errors    the taxonomy of failures (pure)
config    environment variables, read once, checked at the start
log       structured lines with the call's id, without speech or numbers
metrics   the names of the contract, and the clocks behind them
admin     /metrics, /livez, /readyz
facts     the outbox that brings a call's facts to the transcript service
process   uvloop, signals and drain; named nowhere else
"""
