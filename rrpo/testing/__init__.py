"""Contract tests for what others plug in: a class for each Protocol, of which a test file of your own derives one."""
