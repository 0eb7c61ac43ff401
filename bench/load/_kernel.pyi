from bench.load.kernel import Receive, SendFrame

send_frame: SendFrame
receive: Receive
