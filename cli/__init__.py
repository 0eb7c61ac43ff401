"""The ``asheard`` command: services in the foreground, the supervisor, readers, simulators, tools."""
