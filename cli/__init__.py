"""The ``asheard`` command: services, the supervisor, readers, simulators, tools."""
