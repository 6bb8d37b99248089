"""The commands of the console: arguments → the same settings → the same functions as in Python."""
