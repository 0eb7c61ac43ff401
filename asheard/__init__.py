"""The wire: stubs generated from proto/asheard. Nothing in here is written by hand; `make proto`."""
