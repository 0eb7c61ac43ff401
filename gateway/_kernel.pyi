from gateway.turns import ReadReady

read_ready: ReadReady
