"""Version 1 of the contract, generated from proto/asheard/v1."""
