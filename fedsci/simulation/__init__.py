"""Labs on one machine: the same site and coordinator code, in threads or on Ray."""
