"""Which nodes run, written once as data, and the two ways to start them: launch files and the supervisor."""
