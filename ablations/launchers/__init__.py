"""Where tasks run: `pool` says what a launcher must do, each other module does it one way."""
