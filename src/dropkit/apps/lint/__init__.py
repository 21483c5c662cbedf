"""`dropkit lint`: finds files, lets rules judge them, and writes what is fixed."""
